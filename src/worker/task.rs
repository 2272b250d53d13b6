//! The task that a stage receives. Independent of the wire format, so that a field added to the runner's job affects no
//! stage.

use crate::{member::Member, pulse::Pulse};
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
    /// The path of each input, by slot.
    pub inputs: BTreeMap<String, PathBuf>,
    /// The folder for outputs, each under its declared path.
    pub out: PathBuf,
    /// The stage's working folder. It survives a crash; checkpoints belong here.
    pub work: PathBuf,
    /// The folder for by-products: speeds, times, anything that may differ between equal runs.
    pub byproducts: PathBuf,
    /// Threads it may use.
    pub threads: usize,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Whether a training keeps digests of its steps.
    pub step_digests: bool,
    /// This process, of those that compute it together.
    pub member: Member,
    /// The file to which it reports progress.
    pub progress: PathBuf,
    /// Set to request that it writes a checkpoint and returns [`Stopped`].
    pub stop: Arc<AtomicBool>,
    /// Its current work, for the watchdog.
    pub pulse: Arc<Pulse>,
}

/// The error of a stage that stopped on request, with its state on disk.
#[derive(Debug, thiserror::Error)]
#[error("stopped at a checkpoint")]
pub struct Stopped;

impl Task {
    /// The parameters as the kind's own type.
    pub fn parameters<P: DeserializeOwned>(&self) -> Result<P> {
        serde_json::from_value(self.parameters.clone())
            .with_context(|| format!("stage '{}': the parameters do not match kind '{}'", self.stage, self.kind))
    }

    /// The input in `slot`.
    pub fn input(&self, slot: &str) -> Result<&Path> {
        match self.inputs.get(slot) {
            Some(path) => Ok(path),
            None => bail!("stage '{}' has no input '{slot}'", self.stage),
        }
    }

    /// The key under which the result is stored, which is the name of the stage's folder.
    pub fn key(&self) -> Result<&str> {
        let name = self.work.file_name().and_then(|name| name.to_str());
        name.with_context(|| format!("stage '{}' has no folder", self.stage))
    }

    /// The path of an output, given relative to the output folder.
    pub fn output(&self, path: &str) -> PathBuf {
        self.out.join(path)
    }

    /// Whether the stage should write a checkpoint and return [`Stopped`].
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Reports progress to observers. Cheap enough for a few calls per second; failures are ignored.
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
