//! `caco embed`

use super::{OfPipelineArgs, Project, device::Device, open, programs};
use anyhow::{Context, Result, ensure};
use caco_engine::{environment, store::Store};
use caco_pipeline::job::Job;
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// What the worker calls it (`stages/embed.rs`).
const EMBED: &str = "embed";

#[derive(Args)]
#[command(after_help = "Examples:\n  caco embed photos --encoder pretrain/short/encoder --out features.npy")]
pub struct EmbedArgs {
    /// The folder; all images below it, in the order of their paths
    images: PathBuf,
    /// The encoder: a file of weights, or STAGE/OUTPUT of a pipeline that has run
    #[arg(long, value_name = "ENCODER")]
    encoder: String,
    /// FILE.safetensors (paths in its metadata), or FILE.npy (paths in FILE.txt)
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Resize the short side of each image to this many pixels
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    resize: u32,
    /// Side of the centre crop, pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    crop: u32,
    /// The filter for resizing: Bilinear or Bicubic
    #[arg(long, default_value = "Bilinear", value_parser = ["Bilinear", "Bicubic"])]
    filter: String,
    /// Images per forward pass
    #[arg(long, default_value_t = 256, value_name = "N")]
    batch: u32,
    /// The device for tensors: auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    device: Device,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

pub fn main(args: &EmbedArgs, project: &Project) -> Result<ExitCode> {
    let ending = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ensure!(
        ["safetensors", "npy"].contains(&ending),
        "--out {}: give FILE.safetensors or FILE.npy",
        args.out.display()
    );
    ensure!(args.crop <= args.resize, "--crop {} is larger than --resize {}", args.crop, args.resize);
    ensure!(args.batch >= 1, "--batch is 0; give at least 1");
    ensure!(args.images.is_dir(), "{} is no folder", args.images.display());
    let encoder = encoder(args, project)?;
    // Beside the result: what a stopped extraction left is taken up again, and the result is renamed into place.
    let work = args.out.with_extension(format!("{ending}.work"));
    let out = work.join("out");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let code = execute(args, &encoder, &std::path::absolute(&work)?)?;
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    let publish = |ending: &str| {
        let to = args.out.with_extension(ending);
        fs::rename(out.join(format!("embedding.{ending}")), &to)
            .with_context(|| format!("cannot write {}", to.display()))
    };
    if ending == "npy" {
        publish("txt")?;
    }
    publish(ending)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    say!("the features are in {}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The file of weights.
fn encoder(args: &EmbedArgs, project: &Project) -> Result<PathBuf> {
    let file = Path::new(&args.encoder);
    if file.is_file() {
        return Ok(std::path::absolute(file)?);
    }
    let store: Store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)
        .with_context(|| format!("--encoder {} is not a file, so it is taken as a stage", args.encoder))?;
    let artifact = open::output_called("encoder", &args.encoder, &graph, &store)?.artifact;
    ensure!(!artifact.folder, "'{}' is a folder, not a file of weights", args.encoder);
    Ok(std::path::absolute(store.object(artifact.blake3))?)
}

/// Has the worker do it.
fn execute(args: &EmbedArgs, encoder: &Path, work: &Path) -> Result<ExitCode> {
    let parameters = serde_json::json!({
        "encoder": "encoder", "index": "images", "resize": args.resize, "crop": args.crop, "filter": args.filter,
        "batch": args.batch,
    });
    let threads = std::thread::available_parallelism()?.get();
    let job = Job {
        stage: EMBED.into(),
        kind: EMBED.into(),
        parameters,
        inputs: [("encoder", encoder.to_path_buf()), ("images", std::path::absolute(&args.images)?)]
            .map(|(slot, path)| (slot.to_string(), path))
            .into(),
        out: work.join("out"),
        work: work.into(),
        byproducts: work.into(),
        threads,
        device: args.device.to_string(),
        step_digests: false,
        processes: 1,
    };
    let file = work.join("job.json");
    fs::write(&file, serde_json::to_vec_pretty(&job)?).with_context(|| format!("cannot write {}", file.display()))?;
    let worker = programs::worker()?;
    let status = Command::new(&worker)
        .arg(&file)
        .env_clear()
        .envs(environment::of_worker(threads as u64, false))
        .status()
        .with_context(|| format!("cannot start {}", worker.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}
