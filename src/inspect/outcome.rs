//! What became of every stage of a run.

use super::expectation::Expectation;
use caco_engine::{
    event,
    graph::{Graph, Id},
    key::Key,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// The outcome of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// The stages that ran.
    pub ran: Vec<Ran>,
    /// How many stages did not need to run: their results were in the store.
    pub hits: usize,
    /// The stages that failed for good.
    pub failed: Vec<Failed>,
    /// The stages that stopped at a checkpoint, or were not started, because the run was asked to stop.
    pub stopped: Vec<String>,
    /// The stages that did not run because one that they read from failed, was stopped or lacks inputs.
    pub skipped: Vec<String>,
    /// What stopped the run: the number of a signal, or 0 for its time limit.
    pub interrupted: Option<i32>,
    /// The tables with an `expect`: whether each is the published one.
    pub expectations: Vec<Expectation>,
}

/// A stage that ran.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ran {
    /// Its name.
    pub stage: String,
    /// The key of its result.
    pub key: Key,
    /// How long it took.
    pub seconds: f64,
}

/// A stage that failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failed {
    /// Its name.
    pub stage: String,
    /// Why.
    pub why: String,
    /// Its folder, which is kept.
    pub work: PathBuf,
    /// Its log, of all attempts.
    pub log: PathBuf,
}

impl Outcome {
    /// Of a run of this graph.
    pub fn of(graph: &Graph, outcome: &event::Outcome, expectations: Vec<Expectation>) -> Outcome {
        let name = |id: &Id| graph.stage(*id).name.clone();
        let ran = outcome.ran.iter();
        let ran = ran.map(|(id, key, took)| Ran { stage: name(id), key: *key, seconds: took.as_secs_f64() });
        let failed = outcome.failed.iter().map(|failure| Failed {
            stage: name(&failure.stage),
            why: failure.why.clone(),
            work: failure.work.clone(),
            log: failure.log.clone(),
        });
        Outcome {
            ran: ran.collect(),
            hits: outcome.hits,
            failed: failed.collect(),
            stopped: outcome.stopped.iter().map(name).collect(),
            skipped: outcome.skipped.iter().map(name).collect(),
            interrupted: outcome.interrupted,
            expectations,
        }
    }
}
