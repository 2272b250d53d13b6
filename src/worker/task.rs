//! What a stage's code is given to work with. It knows no wire form: a field that the runner adds to its job touches no
//! stage.

use crate::pulse::Pulse;
use anyhow::{Context as _, Result, bail};
use caco_measure::metric::{self, Metric};
use caco_pipeline::progress::Progress;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A stage being executed.
#[derive(Clone, Debug)]
pub struct Task {
    /// The stage's name in the pipeline, for messages.
    pub stage: String,
    /// The stage kind.
    pub kind: String,
    /// The resolved parameters.
    pub parameters: Value,
    /// Where each input is, by slot.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Outputs are written here, each under its declared path.
    pub out: PathBuf,
    /// The stage's own folder. It survives a crash; checkpoints belong here.
    pub work: PathBuf,
    /// By-products are written here: rates, times, anything that may differ between two equal runs.
    pub byproducts: PathBuf,
    /// Threads it may use.
    pub threads: usize,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Where it says how far it is.
    pub progress: PathBuf,
    /// Set when it is asked to write a checkpoint and return [`Stopped`].
    pub stop: Arc<AtomicBool>,
    /// What it is working on, for its watchdog.
    pub pulse: Arc<Pulse>,
}

/// The error of a stage that was asked to stop and whose state is on disk.
#[derive(Debug, thiserror::Error)]
#[error("stopped at a checkpoint")]
pub struct Stopped;

impl Task {
    /// The parameters as the kind's own type.
    pub fn parameters<P: DeserializeOwned>(&self) -> Result<P> {
        serde_json::from_value(self.parameters.clone())
            .with_context(|| format!("stage '{}': parameters do not fit kind '{}'", self.stage, self.kind))
    }

    /// The input in `slot`.
    pub fn input(&self, slot: &str) -> Result<&Path> {
        match self.inputs.get(slot) {
            Some(path) => Ok(path),
            None => bail!("stage '{}' has no input '{slot}'", self.stage),
        }
    }

    /// The key that the result is stored under: the stage's folder is named by it.
    pub fn key(&self) -> Result<&str> {
        let name = self.work.file_name().and_then(|name| name.to_str());
        name.with_context(|| format!("stage '{}' has no folder", self.stage))
    }

    /// Where the output of this path below the output folder is written.
    pub fn output(&self, path: &str) -> PathBuf {
        self.out.join(path)
    }

    /// Whether the stage should write a checkpoint and return [`Stopped`].
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells whoever watches how far the stage is. Cheap enough for a few calls a second; failures are of no account.
    pub fn report(&self, progress: &Progress) {
        let write = || -> io::Result<()> {
            let aside = self.progress.with_extension("partial");
            fs::write(&aside, serde_json::to_vec(progress)?)?;
            fs::rename(aside, &self.progress)
        };
        let _ = write();
    }

    /// Writes the stage's metrics among its outputs.
    pub fn metrics(&self, metrics: &[Metric]) -> Result<()> {
        let path = self.output("metrics.jsonl");
        metric::write(&path, metrics).with_context(|| format!("cannot write {}", path.display()))
    }
}
