//! `caco get`

use super::{OfPipelineArgs, StoreArgs, open};
use anyhow::{Context, Result};
use caco_engine::store::Artifact;
use caco_inspect::name::Output;
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco get pretrain/short/encoder encoder.safetensors")]
pub struct GetArgs {
    /// STAGE/OUTPUT, or STAGE for its first output
    output: String,
    /// A new file or folder, or an existing folder to copy into
    destination: PathBuf,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

pub fn main(args: &GetArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let Output { stage, artifact, .. } = open::output(&args.output, &graph, &store)?;
    let mut to = args.destination.clone();
    if to.is_dir() && !artifact.folder {
        to = to.join(file_name(graph.stage(stage), &artifact));
    }
    store.export(&artifact, &to).with_context(|| format!("cannot copy '{}' to {}", args.output, to.display()))?;
    say!("{} ({} bytes, BLAKE3 {}) is in {}", args.output, artifact.size, artifact.blake3.short(), to.display());
    Ok(ExitCode::SUCCESS)
}

/// The output's own file name, with its ending.
fn file_name(stage: &caco_pipeline::pipeline::Stage, artifact: &Artifact) -> PathBuf {
    let declared = stage.outputs.iter().find(|o| *o.name == *artifact.name).map(|o| o.path.to_string());
    let path = PathBuf::from(declared.unwrap_or_else(|| caco_engine::graph::METRICS_PATH.into()));
    path.file_name().map_or_else(|| path.clone(), Into::into)
}
