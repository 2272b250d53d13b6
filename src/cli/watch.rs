//! `caco watch`

use super::{OfPipelineArgs, StoreArgs, open, print, print_json};
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    names::Names,
    plan::{Plan, Step},
    store::Store,
};
use caco_report::curves::{Follower, render};
use clap::Args;
use std::{collections::HashSet, io::IsTerminal, path::PathBuf, process::ExitCode, thread::sleep, time::Duration};

/// What a training writes beside its checkpoints: one line a step, and one every few steps.
const CURVE: &str = "curve.jsonl";
const PACE: &str = "pace.jsonl";
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct WatchArgs {
    /// The stage; left out: the one that is in progress
    stage: Option<String>,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Show it once, and end
    #[arg(long)]
    once: bool,
    /// Print the newest values as JSON, and end
    #[arg(long)]
    json: bool,
}

pub fn main(args: &WatchArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let found = find(&graph, &store, args.stage.as_deref())?;
    let (mut curve, mut pace) = (Follower::of(found.curve.clone()), Follower::of(found.pace.clone()));
    let live = std::io::stdout().is_terminal() && !args.once && !args.json && found.running.is_some();
    loop {
        // Asked before reading, so that the last look sees the whole curve.
        let done = match found.running {
            Some(key) => store.lookup(key)?.is_some() || !found.curve.exists(),
            None => true,
        };
        curve.read()?;
        pace.read()?;
        if args.json {
            print_json(&curve.newest(&pace))?;
        } else {
            let width = width();
            let clear = if live { "\x1b[2J\x1b[H" } else { "" };
            print(&format!("{clear}{}", render(&found.name, &curve, &pace, width)))?;
        }
        if done || !live {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(LOOK);
    }
}

/// A training: its curves, and its key while it has no result.
struct Found {
    name: String,
    curve: PathBuf,
    pace: PathBuf,
    running: Option<Key>,
}

fn find(graph: &Graph, store: &Store, stage: Option<&str>) -> Result<Found> {
    let ids = match stage {
        Some(name) => vec![open::stage(graph, name)?],
        None => graph.order().to_vec(),
    };
    let plan = Plan::new(graph, &graph.with_sources(&ids), store, &HashSet::new())?;
    let wanted = |id: &Id| stage.is_none() || ids.contains(id);
    let in_progress = plan.steps.iter().filter(|(id, _)| wanted(id)).filter_map(|(id, step)| match step {
        Step::Run(key) if store.work(*key).join(CURVE).exists() => Some((*id, *key)),
        _ => None,
    });
    // Of several in progress, the one whose curve grew last.
    let grew = |key: Key| store.work(key).join(CURVE).metadata().and_then(|m| m.modified()).ok();
    if let Some((id, key)) = in_progress.max_by_key(|(_, key)| grew(*key)) {
        let work = store.work(key);
        let (curve, pace) = (work.join(CURVE), work.join("byproducts").join(PACE));
        return Ok(Found { name: graph.stage(id).name.clone(), curve, pace, running: Some(key) });
    }
    let Some(name) = stage else {
        bail!("no training is in progress here; name a stage to see the curves of a finished one")
    };
    let key = Names::load(store, &graph.pipeline.name).get(name);
    let published = key.and_then(|key| store.lookup(key).ok().flatten());
    let published = published.with_context(|| format!("stage '{name}' was never started here"))?;
    let beside = store.record_folder(&published).join("byproducts");
    let curve = match published.output("curve") {
        Some(output) => store.object(output.blake3),
        None => beside.join(CURVE),
    };
    if !curve.exists() {
        bail!("stage '{name}' has no curve: it is no training");
    }
    Ok(Found { name: name.into(), curve, pace: beside.join(PACE), running: None })
}

/// Columns of the terminal.
fn width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills the structure that it is given, or fails.
    let known = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0 && size.ws_col > 0;
    if known { size.ws_col.into() } else { 100 }
}
