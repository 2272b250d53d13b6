//! `caco export ro-crate`

use super::super::{OfPipelineArgs, Project, open, print, print_json};
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::Id,
    plan::{Plan, Step},
    store::Published,
};
use caco_inspect::name;
use caco_provenance::ro_crate::{self, Packing};
use clap::Args;
use std::{collections::HashSet, path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct RoCrateArgs {
    /// A new or empty folder to pack into
    dir: PathBuf,
    /// Stages or patterns, with all that they read [default: the pipeline's targets]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Only describe outputs of more megabytes than this; do not copy them
    #[arg(long, default_value_t = 100, value_name = "MB")]
    largest: u64,
    /// The licence of what is packed, as a URL [default: none stated]
    #[arg(long, default_value = "no licence was stated", hide_default_value = true, value_name = "URL")]
    license: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &RoCrateArgs, project: &Project) -> Result<ExitCode> {
    let store = open::existing(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let empty = std::fs::read_dir(&args.dir).map_or(true, |mut entries| entries.next().is_none());
    if !empty {
        bail!("{} is not empty; name a new folder", args.dir.display());
    }
    let ids = graph.with_sources(&name::select(&graph, &args.stages)?);
    let plan = Plan::new(&graph, &ids, &store, &HashSet::new())?;
    if let Some((id, _)) = plan.steps.iter().find(|(_, step)| !matches!(step, Step::Hit(_))) {
        let stage = &graph.stage(*id).name;
        let run = name::command(&graph, &args.stages);
        bail!("stage '{stage}' has no result for the pipeline as it is; run it first: {run}");
    }
    let mut seen = HashSet::new();
    // Stages that share a key share a result.
    let results: Vec<(Id, Published)> = plan
        .hits()
        .filter(|(_, published)| seen.insert(published.key))
        .map(|(id, published)| (id, published.clone()))
        .collect();
    let packing = Packing { largest: args.largest.saturating_mul(1_000_000), license: args.license.clone() };
    let packed = ro_crate::pack(&graph, &store, &results, &args.dir, &packing)
        .with_context(|| format!("cannot pack into {}", args.dir.display()))?;
    if args.json {
        print_json(&packed)?;
    } else {
        print(&format!(
            "{} results packed into {}: {} outputs copied, {} larger ones described\n",
            packed.results,
            args.dir.display(),
            packed.copied,
            packed.described
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
