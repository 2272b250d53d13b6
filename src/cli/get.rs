//! `caco get`

use super::{OfPipelineArgs, Project, open, print_bytes};
use anyhow::{Context, Result, ensure};
use caco_engine::store::{Artifact, Store};
use caco_inspect::name::Output;
use clap::Args;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco get pretrain/short/encoder encoder.safetensors")]
pub struct GetArgs {
    /// STAGE/OUTPUT, or STAGE for its first output
    output: String,
    /// A new file or folder, an existing folder to copy into, or - for stdout
    destination: PathBuf,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

pub fn main(args: &GetArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let Output { stage, artifact, .. } = open::output(&args.output, &graph, &store)?;
    if args.destination == Path::new("-") {
        return print_file(&args.output, &artifact, &store);
    }
    let mut to = args.destination.clone();
    if to.is_dir() && !artifact.folder {
        to = to.join(file_name(graph.stage(stage), &artifact));
    }
    store.export(&artifact, &to).with_context(|| format!("cannot copy '{}' to {}", args.output, to.display()))?;
    say!("{} ({} bytes, BLAKE3 {}) is in {}", args.output, artifact.size, artifact.blake3.short(), to.display());
    Ok(ExitCode::SUCCESS)
}

/// Prints an output on stdout.
fn print_file(output: &str, artifact: &Artifact, store: &Store) -> Result<ExitCode> {
    ensure!(!artifact.folder, "'{output}' is a folder, which cannot be printed; name a folder to copy it to");
    let path = store.object(artifact.blake3);
    let read = || format!("cannot read {}", path.display());
    let mut file = File::open(&path).with_context(read)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(read)? {
            0 => return Ok(ExitCode::SUCCESS),
            n => print_bytes(&buffer[..n])?,
        }
    }
}

/// The output's own file name, with its ending.
fn file_name(stage: &caco_pipeline::pipeline::Stage, artifact: &Artifact) -> PathBuf {
    let declared = stage.outputs.iter().find(|o| *o.name == *artifact.name).map(|o| o.path.to_string());
    let path = PathBuf::from(declared.unwrap_or_else(|| caco_engine::graph::METRICS_PATH.into()));
    path.file_name().map_or_else(|| path.clone(), Into::into)
}
