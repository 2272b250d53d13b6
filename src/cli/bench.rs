//! `caco bench`

use super::{device::Device, print, print_json, programs};
use crate::display::bytes;
use anyhow::{Context, Result, bail};
use caco_kinds::{Activations, Arch, Decode, Determinism, Model, Precision, Stem, Views};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, thread::available_parallelism};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco bench step --size 32\n  caco bench loader photos")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure a training step: where its time goes, and its memory
    Step(StepArgs),
    /// Measure the loader on a folder of images: where its time goes
    Loader(LoaderArgs),
    /// Measure a training on a folder of images, from files to weights
    Train(TrainArgs),
}

#[derive(Args)]
struct LoaderArgs {
    /// Images as <class>/<image>
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Side of the large views, pixels
    #[arg(long, default_value_t = 224, value_name = "N")]
    size: u32,
    /// The views of each image: two, or two and six small ones
    #[arg(long, ignore_case = true, default_value = "single")]
    views: ViewsArg,
    /// How to decode JPEG files: in full, or scaled by a shorter DCT where crops allow
    #[arg(long, ignore_case = true, default_value = "full")]
    decode: DecodeArg,
    /// Images per batch
    #[arg(long, default_value_t = 128, value_name = "N")]
    batch: u32,
    /// Seconds to measure, after a quarter as many to warm up
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u32,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum DecodeArg {
    Full,
    Scaled,
}

#[derive(Clone, Copy, ValueEnum)]
enum ViewsArg {
    Single,
    Multi,
}

#[derive(Args)]
struct StepArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Steps to measure
    #[arg(long, default_value_t = 5, value_name = "N")]
    steps: u32,
    /// Processes that take them together: a power of two that divides the shards
    #[arg(long, default_value_t = 1, value_name = "N")]
    processes: u32,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TrainArgs {
    /// Images as <class>/<image>
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// Seconds to measure, after a quarter as many to warm up
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u32,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What is trained, on what.
#[derive(Args)]
struct NetworkArgs {
    /// Depth of the backbone
    #[arg(long, ignore_case = true, default_value = "resnet50")]
    arch: ArchArg,
    /// Channels after the stem
    #[arg(long, default_value_t = 64, value_name = "N")]
    width: u32,
    /// First layers [default: cifar for images of at most 64 pixels]
    #[arg(long, ignore_case = true)]
    stem: Option<StemArg>,
    /// Side of the large views, pixels
    #[arg(long, default_value_t = 224, value_name = "N")]
    size: u32,
    /// What a step compares: two views, or two and six small ones
    #[arg(long, ignore_case = true, default_value = "single")]
    views: ViewsArg,
    /// Images per step
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
    /// On which machines results have the same bytes: those of one class, or all
    #[arg(long, ignore_case = true, default_value = "fast")]
    determinism: DeterminismArg,
    /// Shards into which a batch is cut
    #[arg(long, default_value_t = 1, value_name = "N")]
    shards: u32,
    /// What to keep of a forward pass: everything, or what passes between blocks
    #[arg(long, ignore_case = true, default_value = "keep")]
    activations: ActivationsArg,
    /// Threads of a process [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The device for tensors: auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
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

#[derive(Clone, Copy, ValueEnum)]
enum DeterminismArg {
    Fast,
    Portable,
}

#[derive(Clone, Copy, ValueEnum)]
enum ActivationsArg {
    Keep,
    Recompute,
}

pub fn main(args: &BenchArgs) -> Result<ExitCode> {
    let (report, text, json) = match &args.what {
        What::Step(step) => {
            let mut setup = network(&step.network)?;
            setup["steps"] = at_least("steps", step.steps, 1)?.into();
            join(&mut setup, step)?;
            let report = programs::ask("--bench-step", &setup)?;
            (report.clone(), step_text(&report), step.json)
        }
        What::Loader(loader) => {
            let report = programs::ask("--bench-loader", &loader_setup(loader)?)?;
            (report.clone(), loader_text(&report), loader.json)
        }
        What::Train(train) => {
            let mut setup = network(&train.network)?;
            setup["folder"] = train.folder.to_str().context("the folder's name is not UTF-8")?.into();
            setup["seconds"] = at_least("seconds", train.seconds, 1)?.into();
            let report = programs::ask("--bench-train", &setup)?;
            (report.clone(), train_text(&report), train.json)
        }
    };
    match json {
        true => print_json(&report)?,
        false => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Divides steps among processes: the cores too, unless the threads of each are given.
fn join(setup: &mut Value, step: &StepArgs) -> Result<()> {
    let (processes, shards) = (step.processes, step.network.shards);
    if !processes.is_power_of_two() || processes > shards {
        bail!("--processes is {processes}; give a power of two, of at most the {shards} of --shards");
    }
    setup["processes"] = processes.into();
    if step.network.threads.is_none() {
        setup["threads"] = (cores() / processes as usize).max(1).into();
    }
    Ok(())
}

/// As [`setup`], of the loader.
fn loader_setup(args: &LoaderArgs) -> Result<Value> {
    let views = views(args.views, args.size)?;
    let threads = args.threads.unwrap_or_else(cores);
    for (name, value) in [("batch", args.batch as usize), ("seconds", args.seconds as usize), ("threads", threads)] {
        if value < 1 {
            bail!("--{name} is {value}; give at least 1");
        }
    }
    let decode = match args.decode {
        DecodeArg::Full => Decode::Full,
        DecodeArg::Scaled => Decode::Scaled,
    };
    Ok(
        json!({"folder": args.folder, "views": views, "decode": decode, "batch": args.batch, "threads": threads, "seconds": args.seconds}),
    )
}

/// The paper's views, at another size.
fn views(views: ViewsArg, size: u32) -> Result<Views> {
    let small = (size * 3 / 7).max(8);
    let views = match views {
        ViewsArg::Single => Views::SingleCrop { size },
        ViewsArg::Multi => Views::MultiCrop { size, small, count: 6 },
    };
    if let Err(complaint) = views.check() {
        bail!("--size: {} {}", complaint.field, complaint.message);
    }
    Ok(views)
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn at_least(name: &str, value: u32, least: u32) -> Result<u32> {
    if value < least {
        bail!("--{name} is {value}; give at least {least}");
    }
    Ok(value)
}

/// What is to be trained, as the worker reads it.
fn network(args: &NetworkArgs) -> Result<Value> {
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
    let activations = match args.activations {
        ActivationsArg::Keep => Activations::Keep,
        ActivationsArg::Recompute => Activations::Recompute,
    };
    let model = Model { arch, width: args.width, stem, hidden: args.hidden, dim: args.dim };
    if let Err(complaint) = model.check() {
        bail!("--{} {}", complaint.field.trim_start_matches("model."), complaint.message);
    }
    for (name, value, least) in [("size", args.size, 8), ("batch", args.batch, 2), ("bank", args.bank, 2)] {
        at_least(name, value, least)?;
    }
    let determinism = match args.determinism {
        DeterminismArg::Fast => Determinism::Fast,
        DeterminismArg::Portable => Determinism::Portable,
    };
    if !args.shards.is_power_of_two() || !args.batch.is_multiple_of(args.shards) {
        bail!("--shards is {}; give a power of two that divides the batch of {}", args.shards, args.batch);
    }
    let views = views(args.views, args.size)?;
    let threads = args.threads.unwrap_or_else(cores);
    Ok(json!({"model": model, "views": views, "batch": args.batch, "bank": args.bank, "precision": precision,
        "activations": activations, "determinism": determinism, "shards": args.shards,
        "device": args.device.to_string(), "threads": threads}))
}

/// The report of a step for people. Parts overlap in nothing but `load`, which runs beside the step.
fn step_text(report: &Value) -> String {
    let memory = bytes(report["peak_memory"].as_u64().unwrap_or_default());
    let gpu = |name: &str| report["gpu_memory"][name].as_u64().map(bytes);
    let gpu = gpu("allocated").zip(gpu("reserved"));
    let gpu =
        gpu.map_or_else(String::new, |(used, taken)| format!(", {used} of the GPU's ({taken} with what is kept free)"));
    let mut text = format!(
        "{:.1} images/s, {memory} of the host's memory{gpu}\n",
        report["images_per_second"].as_f64().unwrap_or(f64::NAN)
    );
    let parts = report["milliseconds"].as_object().into_iter().flatten();
    let parts: Vec<(&String, f64)> = parts.map(|(name, time)| (name, time.as_f64().unwrap_or(f64::NAN))).collect();
    let step: f64 =
        parts.iter().filter(|(name, _)| !["load", "exchange"].contains(&name.as_str())).map(|(_, time)| time).sum();
    for name in ["copy", "forward", "keys", "bank", "backward", "optimizer", "exchange", "load"] {
        let Some((_, time)) = parts.iter().find(|(other, _)| *other == name) else { continue };
        let share = match name {
            "load" => "beside the step".into(),
            "exchange" => format!("{:.0} % of the above", 100.0 * time / step),
            _ => format!("{:.0} %", 100.0 * time / step),
        };
        text += &format!("  {name:10} {time:9.1} ms  {share}\n");
    }
    text
}

/// The report of a training for people.
fn train_text(report: &Value) -> String {
    let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:.1} images/s over {} steps; {:.0} % of the time waiting for images; loss {:.4}\n",
        number("images_per_second"),
        report["steps"],
        100.0 * number("waiting"),
        number("loss")
    )
}

/// The report of the loader for people.
fn loader_text(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut text = format!("{:.1} images/s with {} threads\n", number(&report["images_per_second"]), report["threads"]);
    if let Some(difference) = report["difference"].as_f64() {
        text += &format!("  bytes of views differ by {difference:.2} on average from those of full decoding\n");
    }
    for (name, time) in report["microseconds"].as_object().into_iter().flatten() {
        text += &format!("  {name:24} {:9.1} µs an image\n", number(time));
    }
    text
}
