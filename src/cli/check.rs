//! `caco check`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::{Result, bail};
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
#[command(after_help = "Examples:
  caco check pipelines/tiny.ron
  caco check imagenet --expand > imagenet-by-hand.ron")]
pub struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Print the file with its loops written out, without `let` and comments, before it is checked
    #[arg(long, conflicts_with = "json")]
    expand: bool,
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
    if args.expand {
        print_expanded(&args.pipeline, project)?;
    }
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
    } else if !args.expand {
        let kinds: Vec<String> = checked.kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        print(&format!("{}: {} stages are right ({})\n", checked.pipeline, checked.stages, kinds.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Profiles and `--set` are laid over what is printed here, and are still in it or on the command line.
fn print_expanded(args: &PipelineArgs, project: &Project) -> Result<()> {
    if args.overlay.profile.is_some() || !args.overlay.set.is_empty() {
        bail!(
            "--expand prints the file, over which --profile and --set are laid afterwards\n\
             help: leave them out, and lay them over the printed file, where they do the same"
        );
    }
    print(&open::expanded(args, project)?)
}

/// Prints warnings with their lines.
pub fn print_warnings(graph: &Graph, warnings: &[Found]) {
    for warning in warnings {
        let warning = warning.diagnostic().in_iterations(&graph.pipeline.iterations);
        say!("{}", warning.render(&graph.pipeline.sources, super::colour()));
    }
}
