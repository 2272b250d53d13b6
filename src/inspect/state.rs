//! What a run would do with a stage, in a word.

use caco_engine::plan::Step;
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
