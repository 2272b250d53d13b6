//! Searches for convolutions that libtorch computes incorrectly on this machine: values, gradients, crashes and endless
//! loops.
//!
//! `cargo run --release --example convolutions [-- raw]` compares every shape with float64, as computed by caco or,
//! with `raw`, with libtorch's choice of kernel, and prints the shapes that fail. Run it under
//! `ONEDNN_MAX_CPU_ISA=AVX2` for the kernels of another CPU. The work is done in child processes, so that a crash or a
//! hang affects only one shape.

use anyhow::{Context as _, Result, bail};
use caco_learn::model::convolution::{self, Case, TOLERANCE};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    time::Duration,
};

/// A shape that takes longer than this counts as hanging: the largest takes a few hundredths of a second on an idle
/// machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SIZES: std::ops::RangeInclusive<i64> = 1..=32;

/// Shapes that differ only in the image size.
#[derive(Clone, Copy, Debug)]
struct Family {
    from: i64,
    to: i64,
    kernel: i64,
    stride: i64,
    channels_last: bool,
}

impl Family {
    fn all() -> Vec<Family> {
        let mut all = vec![];
        for from in 1..=80 {
            // Shapes in residual blocks.
            let ones = [from / 4, from / 2, from, 2 * from, 4 * from].map(|to| (1, to));
            let threes = [from, 2 * from].map(|to| (3, to));
            for (kernel, to) in ones.into_iter().chain(threes).filter(|(_, to)| *to > 0) {
                for stride in [1, 2] {
                    all.extend([true, false].map(|last| Family { from, to, kernel, stride, channels_last: last }));
                }
            }
        }
        // Stems.
        for to in 1..=80 {
            all.extend([true, false].map(|last| Family { from: 3, to, kernel: 7, stride: 2, channels_last: last }));
        }
        all
    }

    fn words(&self) -> String {
        let Family { from, to, kernel, stride, channels_last } = self;
        let layout = if *channels_last { "channels last" } else { "contiguous" };
        format!("{kernel}x{kernel} stride {stride}, {from} to {to} channels, {layout}")
    }

    fn case(&self, size: i64) -> Case {
        let Family { from, to, kernel, stride, channels_last } = *self;
        Case { batch: 3, from, to, kernel, stride, size, channels_last }
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let raw = arguments.iter().any(|a| a == "raw");
    if let Some(from) = arguments.iter().find_map(|a| a.strip_prefix("from=")) {
        work(from.parse()?, raw);
        return Ok(ExitCode::SUCCESS);
    }
    let families = Family::all();
    let (mut next, mut failed) = (0, 0);
    while next < families.len() {
        let (at, size, fault) = watch(next, raw)?;
        let Some(fault) = fault else { break };
        println!("{}, {size} px: {fault}", families[at].words());
        failed += 1;
        next = at + 1;
    }
    println!("{failed} of {} families of shapes fail", families.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The child process: prints a line before each shape, and the difference after it.
fn work(from: usize, raw: bool) {
    tch::set_num_threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)) as i32);
    let convolve = if raw { convolution::raw } else { convolution::convolve };
    for (number, family) in Family::all().iter().enumerate().skip(from) {
        for size in SIZES {
            println!("{number} {size}");
            // A write out of bounds does not always have an effect.
            let times = if family.kernel == 1 && family.stride == 2 { 3 } else { 1 };
            let distances = (0..times).map(|_| family.case(size).distance(convolve));
            println!("{:e}", distances.fold(0.0, f64::max));
        }
    }
}

/// Runs a child process starting at a family until the first fault. Returns the family, the size and the fault.
fn watch(from: usize, raw: bool) -> Result<(usize, i64, Option<String>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(format!("from={from}")).args(raw.then_some("raw"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("the child's output")?).lines();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let (mut at, mut size) = (from, 0);
    loop {
        let fault = match receiver.recv_timeout(PATIENCE) {
            Ok(line) => match line.split_once(' ') {
                Some((number, pixels)) => {
                    (at, size) = (number.parse()?, pixels.parse()?);
                    continue;
                }
                None if line.parse::<f64>()? <= TOLERANCE => continue,
                None => format!("differs from float64 by {line}"),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => "does not end".into(),
            Err(mpsc::RecvTimeoutError::Disconnected) => return ended(child, at, size),
        };
        child.kill()?;
        child.wait()?;
        return Ok((at, size, Some(fault)));
    }
}

fn ended(mut child: Child, at: usize, size: i64) -> Result<(usize, i64, Option<String>)> {
    let status = child.wait()?;
    match (status.success(), status.code()) {
        (true, _) => Ok((at, size, None)),
        (false, Some(101)) => bail!("the child panicked"),
        (false, _) => Ok((at, size, Some(format!("ends the process ({status})")))),
    }
}
