//! Executes one stage: `caco-worker JOB.json`, started by the runner. With `--process N` it is one of several processes that do
//! so, and that another one starts. Instead, `--bench-step` measures a training step,
//! `--bench-loader` the loader, `--bench-train` both together; `--data-survey` surveys a data set, `--data-sheet` draws
//! a contact sheet, `--data-pixels` decodes an image, `--doctor`,
//! `--self-test` and `--gpus` answer `caco doctor`.

use anyhow::Context as _;
use caco_data::{
    bench as loader, pixels, sheet,
    survey::{self, Report, Setup},
};
use caco_kinds::Determinism;
use caco_learn::{
    device, gpus,
    model::convolution,
    out_of_memory,
    train::{bench, trial},
};
use caco_pipeline::{
    job::{self, Job, STOPPED},
    progress::{PROGRESS, Progress},
};
use caco_worker::{
    member::Member,
    pulse::Pulse,
    stages,
    task::{Stopped, Task},
    team, watchdog,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{self, format::FmtSpan},
    prelude::*,
};

fn main() -> ExitCode {
    let Some(argument) = std::env::args().nth(1) else {
        eprintln!("usage: caco-worker JOB.json (the runner starts it; see `caco run`)");
        return ExitCode::from(2);
    };
    if argument == "--doctor" {
        println!("{}", stages::describe_libtorch());
        return ExitCode::SUCCESS;
    }
    let act = || match argument.as_str() {
        "--self-test" => self_test(),
        "--gpus" => examine_gpus(),
        "--bench-step" => bench_step(),
        "--bench-loader" => answer(loader::measure),
        "--bench-train" => answer(trial::train),
        "--data-survey" => answer(look),
        "--data-sheet" => answer(sheet::draw),
        "--data-pixels" => answer(pixels::describe),
        _ => execute(&argument),
    };
    out_of_memory::silence_panics();
    team::silence_panics();
    match out_of_memory::caught("give a smaller `batch`, or compute on another device", act) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Stopped>() => ExitCode::from(STOPPED as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Compares convolutions with float64, with as many threads as a stage uses.
fn self_test() -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    device::open("cpu", threads, Determinism::Fast)?;
    let distance = convolution::self_test();
    anyhow::ensure!(
        distance < convolution::TOLERANCE,
        "convolutions differ from float64 by {distance:.0e} of the largest number, with {threads} threads"
    );
    println!("convolutions agree with float64 to {distance:.0e} of the largest number");
    Ok(())
}

/// Prints what the GPUs are.
fn examine_gpus() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&gpus::examine()?)?);
    Ok(())
}

/// Reads a setup from stdin, runs `act` and prints its report.
fn answer<Setup: DeserializeOwned, Report: Serialize>(act: fn(&Setup) -> anyhow::Result<Report>) -> anyhow::Result<()> {
    trace(LevelFilter::INFO, None);
    let setup = serde_json::from_reader(std::io::stdin())?;
    println!("{}", serde_json::to_string(&act(&setup)?)?);
    Ok(())
}

/// Surveys a data set. Prints progress to stdout as lines of JSON before the report.
fn look(setup: &Setup) -> anyhow::Result<Report> {
    const PAUSE: Duration = Duration::from_millis(100);
    let reported = Mutex::new(Instant::now());
    let progress = |done, total| {
        let Ok(mut reported) = reported.try_lock() else { return };
        if reported.elapsed() >= PAUSE {
            *reported = Instant::now();
            let progress = Progress { done, total, ..Progress::default() };
            println!("{}", serde_json::to_string(&progress).expect("plain data is JSON"));
        }
    };
    survey::survey(setup, progress)
}

/// Logs text of at least this level to stderr, which is the stage's log, and spans to `spans`: one line of JSON with the
/// duration per closed span.
fn trace(level: LevelFilter, spans: Option<File>) {
    let text = fmt::layer().with_writer(io::stderr).with_ansi(false).without_time();
    let spans = spans.map(|file| {
        let layer = fmt::layer().json().with_span_events(FmtSpan::CLOSE);
        layer.with_writer(Mutex::new(file))
    });
    tracing_subscriber::registry().with(level).with(text).with(spans).init();
}

/// As [`answer`], of a training step, by one process or several. The setup of the others is in a file.
fn bench_step() -> anyhow::Result<()> {
    let number = team::number()?;
    let folder = match number {
        0 => std::env::temp_dir().join(format!("caco-bench-{}", std::process::id())),
        _ => PathBuf::from(std::env::args_os().nth(2).context("the folder of the setup is missing")?),
    };
    let file = folder.join("setup.json");
    let measure = || {
        let setup: bench::Setup = match number {
            0 => serde_json::from_reader(io::stdin())?,
            _ => serde_json::from_slice(&fs::read(&file)?)?,
        };
        trace(if number == 0 { LevelFilter::INFO } else { LevelFilter::WARN }, None);
        if number == 0 && setup.processes > 1 {
            fs::create_dir_all(&folder)?;
            fs::write(&file, serde_json::to_vec(&setup)?)?;
        }
        let arguments = vec!["--bench-step".into(), folder.clone().into()];
        let member = Member { number, of: setup.processes, folder: folder.clone(), arguments };
        team::together(&member, || {
            keep_to_cores(&member, &setup.device);
            let setup = bench::Setup { device: member.device(&setup.device), ..setup };
            let report = bench::step(&setup, &|device| team::join(&member, device))?;
            if number == 0 {
                println!("{}", serde_json::to_string(&report)?);
            }
            Ok(())
        })
    };
    let measured = measure();
    if number == 0 {
        let _ = fs::remove_dir_all(&folder);
    }
    measured
}

fn execute(path: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_slice(&fs::read(path)?)?;
    let member = Member {
        number: team::number()?,
        of: job.processes as usize,
        folder: job.work.clone(),
        arguments: vec![path.into()],
    };
    team::together(&member, || {
        keep_to_cores(&member, &job.device);
        run(job, &member)
    })
}

/// Where processes compute on cores, each keeps to its own.
fn keep_to_cores(member: &Member, device: &str) {
    if !device.starts_with("cuda") {
        team::keep_to_own_cores(member);
    }
}

fn run(job: Job, member: &Member) -> anyhow::Result<()> {
    let is_first = member.number == 0;
    // Spans are optional: a stage computes the same without them.
    let spans = is_first.then(|| File::create(job.byproducts.join("trace.jsonl")).ok()).flatten();
    trace(if is_first { LevelFilter::INFO } else { LevelFilter::WARN }, spans);
    let least = job::least_stall()?;
    let (stop, pulse) = (Arc::new(AtomicBool::new(false)), Arc::new(Pulse::new(least)));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone())?;
    team::accept_stops();
    // A step that hangs in one process hangs in the first, whose watchdog ends all of them.
    if is_first {
        watchdog::start(pulse.clone(), job.work.join(job::ALIVE), least)?;
    }
    let Job { stage, kind, parameters, inputs, out, work, byproducts, threads, device, step_digests, .. } = job;
    let progress = work.join(PROGRESS);
    stages::execute(&Task {
        stage,
        kind,
        parameters,
        inputs,
        out,
        work,
        byproducts,
        threads: (threads / member.of).max(1),
        device: member.device(&device),
        step_digests,
        member: member.clone(),
        progress,
        stop,
        pulse,
    })
}
