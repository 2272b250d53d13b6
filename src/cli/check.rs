//! `caco check`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_engine::{
    graph::Graph,
    warning::{self, Warning as Found},
};
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
    /// Values that will hardly give what is wanted.
    warnings: Vec<Warning>,
}

/// A value that is allowed, but will hardly give what is wanted.
#[derive(Serialize, JsonSchema)]
pub struct Warning {
    /// The stages that have it.
    stages: Vec<String>,
    /// The field.
    field: String,
    /// Where the first of them has the value, as `file:line`; where that is a default, the stage.
    place: String,
    /// What is wrong with it.
    message: String,
    /// A better value.
    help: String,
}

pub fn main(args: &CheckArgs, project: &Project) -> Result<ExitCode> {
    let graph = open::graph(&args.pipeline, project)?;
    expectation::check(&graph)?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    graph.pipeline.stages.iter().for_each(|stage| *kinds.entry(stage.kind).or_default() += 1);
    let found = warning::all(&graph, graph.order());
    let warnings = found.iter().map(|of| Warning {
        stages: of.stages.clone(),
        field: of.field.clone(),
        place: graph.pipeline.place_of(of.at),
        message: of.message.clone(),
        help: of.help.clone(),
    });
    let (pipeline, stages) = (graph.pipeline.name.as_str(), graph.pipeline.stages.len());
    let checked = Checked { pipeline, stages, kinds, warnings: warnings.collect() };
    print_warnings(&graph, &found);
    if args.json {
        print_json(&checked)?;
    } else {
        let kinds: Vec<String> = checked.kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        print(&format!("{}: {} stages are right ({})\n", checked.pipeline, checked.stages, kinds.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints warnings with their lines.
pub fn print_warnings(graph: &Graph, warnings: &[Found]) {
    for warning in warnings {
        say!("{}", warning.diagnostic().render(&graph.pipeline.sources, super::colour()));
    }
}
