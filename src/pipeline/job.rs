//! The interface between a runner and the process that executes a stage: files and exit codes. The engine writes and
//! the worker reads; neither depends on the other.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Exit code of a stage that was asked to stop and wrote a checkpoint (EX_TEMPFAIL of sysexits.h).
pub const STOPPED: i32 = 75;

/// Exit code of a stage that its watchdog terminated (EX_SOFTWARE of sysexits.h).
pub const STALLED: i32 = 70;

/// The file in a stage's folder that a worker renews while it responds.
pub const ALIVE: &str = "alive";
/// The variable with the minimum number of seconds before a step counts as stalled. The default is a minute.
const STALL_VARIABLE: &str = "CACO_STALL_SECONDS";

/// The minimum time before a step counts as stalled. An error if [`STALL_VARIABLE`] is not a number of seconds.
pub fn least_stall() -> Result<Duration> {
    let seconds: f64 = match std::env::var(STALL_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{STALL_VARIABLE} is '{text}'; give seconds"))?,
        Err(_) => 60.0,
    };
    ensure!(seconds > 0.0, "{STALL_VARIABLE} is {seconds}; give more than 0 seconds");
    // A year is effectively unlimited, and can be multiplied.
    Duration::try_from_secs_f64(seconds.min(3e7))
        .with_context(|| format!("{STALL_VARIABLE} is {seconds}; give seconds"))
}

/// One stage to execute. All paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The stage's name in the pipeline, for messages.
    pub stage: String,
    /// The stage kind.
    pub kind: String,
    /// The resolved parameters.
    pub parameters: serde_json::Value,
    /// The path of each input, by slot.
    pub inputs: BTreeMap<String, PathBuf>,
    /// The output folder, in which each output has its declared path. Empty at the start of every attempt.
    pub out: PathBuf,
    /// The stage's own folder, for checkpoints. It survives a crash.
    pub work: PathBuf,
    /// The folder for by-products: rates, times, anything that may differ between two identical runs.
    pub byproducts: PathBuf,
    /// Threads the stage may use.
    pub threads: usize,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Whether a training keeps digests of its steps, as [`crate::step_digests`].
    pub step_digests: bool,
    /// Processes that compute it together, the first of which is started for this job.
    pub processes: u32,
}
