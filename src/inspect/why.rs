//! Why a stage runs: which value changed, from what to what.

use super::{
    name,
    state::{Planned, State},
};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id, Origin},
    key::Key,
    listing::{Content, Listing},
    names::Names,
    plan::{Ask, Missing, Outside, Plan, Step, ask},
    store::Store,
    why::{Change, changes},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::HashSet;

/// A change, and where the pipeline file has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reason {
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
    /// The line of the pipeline file that holds the value, as `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<String>,
}

/// A stage that runs before this one, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Upstream {
    /// The stage's name.
    pub stage: String,
    /// Why it runs.
    pub why: Vec<Reason>,
}

/// What a run would do with a stage, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Why {
    /// The stage's name.
    pub stage: String,
    /// Where the pipeline file has the stage, as `file:line`.
    pub written_at: String,
    /// What a run would do with it.
    pub state: State,
    /// The key of its result. Absent where it is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Why it would run: what differs from its last result.
    pub why: Vec<Reason>,
    /// For a stage that may run: the stages that run before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Upstream>,
    /// The inputs that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// The stage that it reads from and that cannot run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// What a run would do with a stage, and why.
///
/// # Errors
/// Where there is no such stage, or the store cannot be read.
pub fn why(graph: &Graph, store: &Store, stage: &str) -> Result<Why> {
    let id = name::stage(graph, stage)?;
    let plan = Plan::new(graph, &graph.with_sources(&[id]), store, &HashSet::new())?;
    let names = Names::load(store, &graph.pipeline.name);
    let of = |id: Id| -> Result<Vec<Reason>> {
        let changes = reasons(graph, store, &names, &plan, id, false)?;
        Ok(changes.into_iter().map(|change| Reason { written_at: written_at(graph, id, &change), change }).collect())
    };
    let step = plan.step(id).expect("the stage was planned");
    let Planned { stage, state, key, missing, behind, .. } = Planned::of(graph, id, step);
    let mut found = Why {
        stage,
        written_at: graph.pipeline.place(graph.stage(id)),
        state,
        key,
        why: if state == State::Run { of(id)? } else { vec![] },
        upstream: vec![],
        missing,
        behind,
    };
    if state == State::MayRun {
        for (other, _) in plan.steps.iter().filter(|(of, step)| *of != id && matches!(step, Step::Run(_))) {
            found.upstream.push(Upstream { stage: graph.stage(*other).name.clone(), why: of(*other)? });
        }
    }
    Ok(found)
}

/// Why a stage of a plan runs: what differs from its last result.
///
/// # Errors
/// Where the store cannot be read.
pub fn reasons(graph: &Graph, store: &Store, names: &Names, plan: &Plan, id: Id, forced: bool) -> Result<Vec<Change>> {
    let published = |of: Id| match plan.step(of) {
        Some(Step::Hit(published)) => Some(published),
        _ => None,
    };
    let Ask::Known(key, text) = ask(graph, id, &plan.outside, published) else { return Ok(vec![]) };
    if forced {
        return Ok(vec![Change::Forced]);
    }
    let Some(last) = names.get(&graph.stage(id).name) else { return Ok(vec![Change::New]) };
    if last == key {
        return Ok(vec![Change::Gone]);
    }
    let Some(old) = store.preimage(last)? else { return Ok(vec![Change::New]) };
    let mut found = changes(&old, &serde_json::from_str(&text)?);
    name_files(graph, store, &plan.outside, id, &mut found)?;
    Ok(found)
}

/// Where the pipeline file has a changed parameter.
fn written_at(graph: &Graph, id: Id, change: &Change) -> Option<String> {
    let Change::Parameter { field, .. } = change else { return None };
    graph.pipeline.field_place(graph.stage(id), field)
}

/// Adds, to inputs that are folders, which files of them differ.
fn name_files(graph: &Graph, store: &Store, outside: &Outside, id: Id, changes: &mut [Change]) -> Result<()> {
    for change in changes {
        let Change::Input { slot, old: Some(old), new: Some(_), files } = change else { continue };
        let edge = graph.edges(id).iter().find(|edge| *edge.slot == **slot);
        let Some(Origin::Path(Ok(at))) = edge.map(|edge| &edge.from) else { continue };
        let content = outside.content(at).map(|content| &**content);
        let (Some(Content::Folder(now)), Some(before)) = (content, store.kept_listing(*old)?) else {
            continue;
        };
        *files = changed_files(&before, now);
    }
    Ok(())
}

/// The files that differ between two folders: path and what happened.
pub(crate) fn changed_files(old: &Listing, new: &Listing) -> Vec<(String, String)> {
    old.changes(new).into_iter().map(|(path, what)| (path, what.to_string())).collect()
}
