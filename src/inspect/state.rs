//! What a run would do with a stage.

use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    plan::{Missing, Step},
    why::Change,
};
use schemars::JsonSchema;
use serde::Serialize;

/// What a run would do with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing: its result is in the store.
    Hit,
    /// Run it.
    Run,
    /// Run it if a stage that it reads from, which runs first, yields other bytes than before.
    MayRun,
    /// Nothing: inputs are missing.
    Missing,
}

impl State {
    /// Of a step of a plan.
    pub fn of(step: &Step) -> State {
        match step {
            Step::Hit(_) => State::Hit,
            Step::Run(_) => State::Run,
            Step::MayRun => State::MayRun,
            Step::Blocked(_) | Step::Behind(_) => State::Missing,
        }
    }
}

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

impl Planned {
    /// A stage with its step of a plan, without the reasons.
    pub fn of(graph: &Graph, id: Id, step: &Step) -> Planned {
        let (key, missing, behind) = match step {
            Step::Hit(published) => (Some(published.key), vec![], None),
            Step::Run(key) => (Some(*key), vec![], None),
            Step::MayRun => (None, vec![], None),
            Step::Blocked(missing) => (None, missing.clone(), None),
            Step::Behind(of) => (None, vec![], Some(graph.stage(*of).name.clone())),
        };
        Planned { stage: graph.stage(id).name.clone(), state: State::of(step), key, why: None, missing, behind }
    }
}
