//! `caco cache pin` and `unpin`

use super::super::{OfPipelineArgs, Project, open};
use anyhow::{Result, bail};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct PinArgs {
    /// A key, the start of one, or a stage of the pipeline
    result: String,
    /// Why it is kept
    #[arg(long, value_name = "TEXT", default_value = "")]
    because: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

#[derive(Args)]
pub struct UnpinArgs {
    /// A key, the start of one, or a stage of the pipeline
    result: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

pub fn pin(args: &PinArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let key = open::result(&args.result, &args.pipeline, project, &store)?;
    store.pin(key, Some(&args.because))?;
    say!("{} is pinned: no collection removes it", key.0.short());
    Ok(ExitCode::SUCCESS)
}

pub fn unpin(args: &UnpinArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let key = open::result(&args.result, &args.pipeline, project, &store)?;
    if !store.is_pinned(key) {
        bail!("{} is not pinned; `caco cache ls` marks what is", key.0.short());
    }
    store.pin(key, None)?;
    say!("{} is no longer pinned", key.0.short());
    Ok(ExitCode::SUCCESS)
}
