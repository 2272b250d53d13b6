//! The curves of a training, while it runs or after.

use super::name;
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    plan::{Plan, Step},
    store::Store,
};
use caco_report::curves::Follower;
use std::{collections::HashSet, path::PathBuf};

/// What a training writes beside its checkpoints: a line a step, and a line every few steps.
const CURVE: &str = "curve.jsonl";
const PACE: &str = "pace.jsonl";

/// A training whose curves are followed. The newest value of each, by name, is what `caco watch --json` prints.
#[derive(Debug)]
pub struct Training {
    /// The stage's name.
    pub stage: String,
    /// A value of each curve for each step.
    pub curve: Follower,
    /// How fast it goes.
    pub pace: Follower,
    /// Notes for the caller, one sentence each.
    pub notes: Vec<String>,
    /// While it has no result: its key, and the file that its steps are written to.
    running: Option<(Key, PathBuf)>,
}

impl Training {
    /// Whether it was running when it was found.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Reads what was added since the last time. Returns whether that was all.
    ///
    /// # Errors
    /// Where a file or the store cannot be read.
    pub fn read(&mut self, store: &Store) -> Result<bool> {
        // Asked before reading, so that the last look sees the whole curve.
        let ended = match &self.running {
            Some((key, curve)) => store.lookup(*key)?.is_some() || !curve.exists(),
            None => true,
        };
        self.curve.read()?;
        self.pace.read()?;
        Ok(ended)
    }
}

/// The training of this name; without a name, the one in progress whose curve grew last.
///
/// # Errors
/// Where there is none, or it never ran here.
pub fn training(graph: &Graph, store: &Store, stage: Option<&str>) -> Result<Training> {
    let ids = match stage {
        Some(name) => vec![name::stage(graph, name)?],
        None => graph.order().to_vec(),
    };
    if let Some((id, key)) = in_progress(graph, store, &ids)? {
        let (work, stage) = (store.work(key), graph.stage(id).name.clone());
        let (curve, pace) = (work.join(CURVE), work.join("byproducts").join(PACE));
        let running = Some((key, curve.clone()));
        return Ok(Training { stage, curve: Follower::of(curve), pace: Follower::of(pace), notes: vec![], running });
    }
    let (Some(stage), [id]) = (stage, ids.as_slice()) else {
        bail!("no training is in progress here; name a stage to see the curves of a finished one")
    };
    let shown = name::shown(graph, *id, store)?;
    let name::Shown { published, notes, .. } =
        shown.with_context(|| format!("stage '{stage}' was never started here"))?;
    let beside = store.record_folder(&published).join("byproducts");
    let curve = match published.output("curve") {
        Some(output) => store.object(output.blake3),
        None => beside.join(CURVE),
    };
    if !curve.exists() {
        bail!("stage '{stage}' has no curve: it is not a training");
    }
    Ok(Training {
        stage: stage.into(),
        curve: Follower::of(curve),
        pace: Follower::of(beside.join(PACE)),
        notes,
        running: None,
    })
}

/// Of these stages, the one in progress whose curve grew last, and its key.
fn in_progress(graph: &Graph, store: &Store, ids: &[Id]) -> Result<Option<(Id, Key)>> {
    let plan = Plan::new(graph, &graph.with_sources(ids), store, &HashSet::new())?;
    let curve = |key: Key| store.work(key).join(CURVE);
    let wanted: HashSet<Id> = ids.iter().copied().collect();
    let running = plan.steps.iter().filter(|(id, _)| wanted.contains(id)).filter_map(|(id, step)| match step {
        Step::Run(key) if curve(*key).exists() => Some((*id, *key)),
        _ => None,
    });
    Ok(running.max_by_key(|(_, key)| curve(*key).metadata().and_then(|m| m.modified()).ok()))
}
