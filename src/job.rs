//! What a runner hands to the process that executes one stage, and how that process answers. The engine writes it and
//! `stages/` reads it; neither knows the other.

use crate::{
    metric::{self, Metric},
    pulse::Pulse,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Exit code of a stage that was asked to stop and wrote a checkpoint (EX_TEMPFAIL of sysexits.h).
pub const STOPPED: i32 = 75;

/// Exit code of a stage that its watchdog ended (EX_SOFTWARE of sysexits.h).
pub const STALLED: i32 = 70;

/// The file in a stage's folder that a worker renews while it responds.
pub const ALIVE: &str = "alive";
/// Names the seconds before which no step counts as stalled; a minute without it.
const STALL_VARIABLE: &str = "CACO_STALL_SECONDS";

/// No step counts as stalled before this. An error where [`STALL_VARIABLE`] is no number of seconds.
pub fn least_stall() -> Result<Duration> {
    let seconds = match std::env::var(STALL_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{STALL_VARIABLE} is '{text}'; give seconds"))?,
        Err(_) => 60.0,
    };
    ensure!(seconds > 0.0, "{STALL_VARIABLE} is {seconds}; give more than 0 seconds");
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{STALL_VARIABLE} is {seconds}; give seconds"))
}

/// The file in a stage's folder that holds its [`Progress`] as JSON.
pub const PROGRESS: &str = "progress.json";
/// The environment variable that names it to a command.
pub const PROGRESS_VARIABLE: &str = "CACO_PROGRESS";

/// One stage to execute. All paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The stage's name in the pipeline, for messages.
    pub stage: String,
    /// The stage kind.
    pub kind: String,
    /// The resolved parameters.
    pub parameters: serde_json::Value,
    /// Where each input lies, by slot.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Outputs are written here, each under its declared path. Empty at the start of every attempt.
    pub out: PathBuf,
    /// The stage's own folder. It survives a crash; checkpoints belong here.
    pub work: PathBuf,
    /// By-products are written here: rates, times, anything that may differ between two equal runs.
    pub byproducts: PathBuf,
    /// Threads the stage may use.
    pub threads: usize,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
}

/// How far a stage is. Written beside its checkpoints for whoever watches; a command leaves out what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0: not known.
    pub total: u64,
    /// What is counted: `steps`, `images`.
    pub unit: String,
    /// The last figure worth a look, with its name.
    pub note: String,
}

/// A job being executed.
#[derive(Clone, Debug)]
pub struct Task {
    /// What was asked for.
    pub job: Job,
    stop: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

/// The error of a stage that was asked to stop and whose state is on disk.
#[derive(Debug, thiserror::Error)]
#[error("stopped at a checkpoint")]
pub struct Stopped;

impl Task {
    /// A task whose [`Task::stopping`] follows `stop`.
    pub fn new(job: Job, stop: Arc<AtomicBool>) -> Self {
        Task { job, stop, pulse: Arc::default() }
    }

    /// The task, whose work a watchdog follows.
    pub fn watched(self, pulse: Arc<Pulse>) -> Self {
        Task { pulse, ..self }
    }

    /// What it is working on.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The parameters as the kind's own type.
    pub fn parameters<P: DeserializeOwned>(&self) -> Result<P> {
        serde_json::from_value(self.job.parameters.clone())
            .with_context(|| format!("stage '{}': parameters do not fit kind '{}'", self.job.stage, self.job.kind))
    }

    /// The input in `slot`.
    pub fn input(&self, slot: &str) -> Result<&Path> {
        match self.job.inputs.get(slot) {
            Some(path) => Ok(path),
            None => bail!("stage '{}' has no input '{slot}'", self.job.stage),
        }
    }

    /// The key that the result is stored under: the stage's folder is named by it.
    pub fn key(&self) -> Result<&str> {
        let name = self.job.work.file_name().and_then(|name| name.to_str());
        name.with_context(|| format!("stage '{}' has no folder", self.job.stage))
    }

    /// Where the output of this path below the output folder is written.
    pub fn output(&self, path: &str) -> PathBuf {
        self.job.out.join(path)
    }

    /// Whether the stage should write a checkpoint and return [`Stopped`].
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells whoever watches how far the stage is. Cheap enough for a few calls a second; failures are of no account.
    pub fn progress(&self, progress: &Progress) {
        let write = || -> io::Result<()> {
            let aside = self.job.work.join(PROGRESS).with_extension("partial");
            fs::write(&aside, serde_json::to_vec(progress)?)?;
            fs::rename(aside, self.job.work.join(PROGRESS))
        };
        let _ = write();
    }

    /// Writes the stage's metrics among its outputs.
    pub fn metrics(&self, metrics: &[Metric]) -> Result<()> {
        let path = self.output("metrics.jsonl");
        metric::write(&path, metrics).with_context(|| format!("cannot write {}", path.display()))
    }
}
