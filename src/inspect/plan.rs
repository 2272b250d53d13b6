//! What a run would do, stage by stage.

use super::{state::State, why};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    names::Names,
    plan::{self, Missing, Step},
    store::Store,
    why::Change,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::HashSet;

/// A stage of a plan.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Planned {
    /// The stage's name.
    pub stage: String,
    /// What a run would do with it.
    pub state: State,
    /// The key of its result. Absent where it is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Why it would run: what differs from its last result. Absent for other states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Vec<Change>>,
    /// The inputs that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// The stage that it reads from and that cannot run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// Every stage of a plan, in the order in which they would run. `forced` run although their results are there.
///
/// # Errors
/// Where the store cannot be read.
pub fn plan(
    graph: &Graph,
    store: &Store,
    names: &Names,
    plan: &plan::Plan,
    forced: &HashSet<Id>,
) -> Result<Vec<Planned>> {
    plan.steps
        .iter()
        .map(|(id, step)| {
            let stage = graph.stage(*id).name.clone();
            let mut planned =
                Planned { stage, state: State::of(step), key: None, why: None, missing: vec![], behind: None };
            match step {
                Step::Hit(published) => planned.key = Some(published.key),
                Step::Run(key) => {
                    planned.key = Some(*key);
                    planned.why = Some(why::reasons(graph, store, names, plan, *id, forced.contains(id))?);
                }
                Step::MayRun => {}
                Step::Blocked(missing) => planned.missing = missing.clone(),
                Step::Behind(of) => planned.behind = Some(graph.stage(*of).name.clone()),
            }
            Ok(planned)
        })
        .collect()
}
