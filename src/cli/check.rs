//! `caco check`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_inspect::expectation;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco check pipelines/tiny.ron")]
pub struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A pipeline file without errors.
#[derive(Serialize, JsonSchema)]
pub struct Checked<'c> {
    /// The pipeline's name.
    pipeline: &'c str,
    /// How many stages it has.
    stages: usize,
    /// How many of each kind.
    kinds: BTreeMap<&'c str, usize>,
}

pub fn main(args: &CheckArgs, project: &Project) -> Result<ExitCode> {
    let graph = open::graph(&args.pipeline, project)?;
    expectation::check(&graph)?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    graph.pipeline.stages.iter().for_each(|stage| *kinds.entry(stage.kind).or_default() += 1);
    let checked = Checked { pipeline: &graph.pipeline.name, stages: graph.pipeline.stages.len(), kinds };
    if args.json {
        print_json(&checked)?;
    } else {
        let kinds: Vec<String> = checked.kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        print(&format!("{}: {} stages are right ({})\n", checked.pipeline, checked.stages, kinds.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
