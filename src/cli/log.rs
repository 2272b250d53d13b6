//! `caco log`

use super::{OfPipelineArgs, StoreArgs, open, print};
use crate::engine::{names::Names, plan::Plan, plan::Step};
use anyhow::{Result, bail};
use clap::Args;
use std::{collections::HashSet, fs, process::ExitCode};

#[derive(Args)]
pub struct LogArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
}

pub fn main(args: &LogArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let id = open::stage(&graph, &args.stage)?;
    let plan = Plan::new(&graph, &graph.with_sources(&[id]), &store, &HashSet::new())?;
    // A stage in progress, or one that failed, has its log in its folder; a finished one in its record.
    let step = plan.steps.iter().find(|(other, _)| *other == id).map(|(_, step)| step);
    let last =
        || Names::load(&store, &graph.pipeline.name).get(&args.stage).and_then(|key| store.lookup(key).ok().flatten());
    let path = match step {
        Some(Step::Run(key)) if store.work(*key).join("log").exists() => Some(store.work(*key).join("log")),
        Some(Step::Hit(published)) => Some(store.record_folder(published).join("log")),
        _ => last().map(|published| store.record_folder(&published).join("log")),
    };
    let Some(path) = path else { bail!("stage '{}' was never started here", args.stage) };
    print(&String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()))?;
    Ok(ExitCode::SUCCESS)
}
