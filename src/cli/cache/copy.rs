//! `caco cache copy`

use super::super::{
    OfPipelineArgs, Project,
    display::{bytes, count},
    open, print, print_json,
};
use anyhow::{Result, bail};
use caco_engine::{
    key::Key,
    plan::Plan,
    store::{Copied, Store},
};
use caco_inspect::name;
use clap::Args;
use std::{collections::HashSet, path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct CopyArgs {
    /// The store to copy to
    #[arg(long, value_name = "DIR", required_unless_present = "from", conflicts_with = "from")]
    to: Option<PathBuf>,
    /// The store to copy from
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Stages or patterns, with all that they read [default: the pipeline's targets]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Copy every result of the store
    #[arg(long, conflicts_with = "stages")]
    all: bool,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &CopyArgs, project: &Project) -> Result<ExitCode> {
    let ours = open::store(project)?;
    let (from, to) = match (&args.from, &args.to) {
        (Some(from), _) if !from.join("VERSION").exists() => {
            bail!("{} is not a store: it has no VERSION file", from.display())
        }
        (Some(from), _) => (Store::open(from)?, ours),
        (None, Some(to)) => (ours, Store::open(to)?),
        (None, None) => bail!("say where: --to DIR or --from DIR"),
    };
    if from.root() == to.root() {
        bail!("{} is both source and target", from.root().display());
    }
    let keys = if args.all { from.keys()? } else { keys(args, project, &from, &to)? };
    let copied = from.copy_to(&to, &keys)?;
    to.save_accelerators();
    if args.json {
        print_json(&copied)?
    } else {
        print(&text(&copied, &to))?
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of the chosen stages and of all they read. The pipeline may have been run in either store.
fn keys(args: &CopyArgs, project: &Project, from: &Store, to: &Store) -> Result<Vec<Key>> {
    let graph_of = |store| open::graph_of(&args.pipeline, project, store);
    let graph = graph_of(from).or_else(|e| graph_of(to).map_err(|_| e))?;
    let ids = graph.with_sources(&name::select(&graph, &args.stages)?);
    let plan = Plan::new(&graph, &ids, from, &HashSet::new())?;
    let lacking: Vec<&str> = plan
        .steps
        .iter()
        .filter(|(_, step)| !matches!(step, caco_engine::plan::Step::Hit(_)))
        .map(|(id, _)| graph.stage(*id).name.as_str())
        .collect();
    if !lacking.is_empty() {
        let more = if lacking.len() > 5 { ", …" } else { "" };
        say!("without a result in {}: {}{more}", from.root().display(), lacking[..lacking.len().min(5)].join(", "));
    }
    Ok(plan.hits().map(|(_, published)| published.key).collect())
}

fn text(copied: &Copied, to: &Store) -> String {
    let mut text = format!(
        "{} copied to {} ({}, {}), {} there already\n",
        count(copied.records, "record"),
        to.root().display(),
        count(copied.objects, "object"),
        bytes(copied.bytes),
        copied.there
    );
    for key in &copied.diverges {
        text += &format!("key {} now has records of different bytes; the older one stands\n", key.0.short());
    }
    text
}
