//! `caco bench`

use super::{print, print_json, programs};
use crate::spec::kind::{Arch, Model, Precision, Stem};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::{
    process::{Command, ExitCode, Stdio},
    thread::available_parallelism,
};

#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time the training step, and tell where its time goes
    Step(StepArgs),
}

#[derive(Args)]
struct StepArgs {
    /// Depth of the backbone
    #[arg(long, ignore_case = true, default_value = "resnet50")]
    arch: ArchArg,
    /// Channels after the stem
    #[arg(long, default_value_t = 64, value_name = "N")]
    width: u32,
    /// First layers; left out: cifar for images of at most 64 pixels
    #[arg(long, ignore_case = true)]
    stem: Option<StemArg>,
    /// Side of both views, pixels
    #[arg(long, default_value_t = 224, value_name = "N")]
    size: u32,
    /// Images a step
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: u32,
    /// Columns of the bank
    #[arg(long, default_value_t = 65536, value_name = "N")]
    bank: u32,
    /// Hidden width of the head
    #[arg(long, default_value_t = 2048, value_name = "N")]
    hidden: u32,
    /// Dimension of the embedding
    #[arg(long, default_value_t = 256, value_name = "N")]
    dim: u32,
    /// Arithmetic of the encoders
    #[arg(long, ignore_case = true, default_value = "f32")]
    precision: PrecisionArg,
    /// Steps measured
    #[arg(long, default_value_t = 5, value_name = "N")]
    steps: u32,
    /// Threads; left out: one a core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Where tensors live: auto, cpu, cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ArchArg {
    Resnet18,
    Resnet34,
    Resnet50,
}

#[derive(Clone, Copy, ValueEnum)]
enum StemArg {
    Imagenet,
    Cifar,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    F32,
    Bf16,
}

pub fn main(args: &BenchArgs) -> Result<ExitCode> {
    let What::Step(step) = &args.what;
    let report = measure(step)?;
    match step.json {
        true => print_json(&report)?,
        false => print(&tell(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be measured, as the worker reads it.
fn setup(args: &StepArgs) -> Result<Value> {
    let small = if args.size <= 64 { StemArg::Cifar } else { StemArg::Imagenet };
    let arch = match args.arch {
        ArchArg::Resnet18 => Arch::ResNet18,
        ArchArg::Resnet34 => Arch::ResNet34,
        ArchArg::Resnet50 => Arch::ResNet50,
    };
    let stem = match args.stem.unwrap_or(small) {
        StemArg::Imagenet => Stem::Imagenet,
        StemArg::Cifar => Stem::Cifar,
    };
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    let model = Model { arch, width: args.width, stem, hidden: args.hidden, dim: args.dim };
    if let Err(complaint) = model.check() {
        bail!("--{} {}", complaint.field.trim_start_matches("model."), complaint.message);
    }
    for (name, value, least) in
        [("size", args.size, 8), ("batch", args.batch, 2), ("bank", args.bank, 2), ("steps", args.steps, 1)]
    {
        if value < least {
            bail!("--{name} is {value}; give at least {least}");
        }
    }
    let threads = args.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    Ok(json!({"model": model, "size": args.size, "batch": args.batch, "bank": args.bank, "precision": precision,
        "device": args.device, "threads": threads, "steps": args.steps}))
}

fn measure(args: &StepArgs) -> Result<Value> {
    let setup = setup(args)?;
    let worker = programs::worker()?;
    let mut command = Command::new(&worker);
    command.arg("--bench-step").env_clear().envs(programs::environment(setup["threads"].as_u64().unwrap_or(1)));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", worker.display()))?;
    serde_json::to_writer(child.stdin.take().context("the worker's stdin")?, &setup)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the step could not be measured ({}); the lines above say why", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the worker's report is not JSON")
}

/// The report for people. Parts overlap in nothing but `load`, which runs beside the step.
fn tell(report: &Value) -> String {
    let mut text = format!("{:.1} images/s\n", report["images_per_second"].as_f64().unwrap_or(f64::NAN));
    let parts = report["milliseconds"].as_object().into_iter().flatten();
    let parts: Vec<(&String, f64)> = parts.map(|(name, time)| (name, time.as_f64().unwrap_or(f64::NAN))).collect();
    let step: f64 = parts.iter().filter(|(name, _)| *name != "load").map(|(_, time)| time).sum();
    for name in ["copy", "forward", "keys", "bank", "backward", "optimizer", "load"] {
        let Some((_, time)) = parts.iter().find(|(other, _)| *other == name) else { continue };
        let share = if name == "load" { "beside the step".into() } else { format!("{:.0} %", 100.0 * time / step) };
        text += &format!("  {name:10} {time:9.1} ms  {share}\n");
    }
    text
}
