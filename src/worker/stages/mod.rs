//! One file per stage kind: resolved parameters and input paths → output files and metrics. The only place that uses
//! both the engine's interface ([`Task`]) and the experiment code.
//!
//! Code shared by stages is in separate files, not here: this file names every kind, so any file that used it would
//! depend on the code of all kinds (see `build/source.rs`).

mod compare;
mod embed;
mod export_weights;
mod features;
mod import_weights;
mod index;
mod init_bank;
mod init_encoder;
mod knn;
mod linear_eval;
mod monitor;
mod pack;
mod pool;
mod pretrain;
mod progress;
mod reading;
mod synthesize;
mod tensorboard;
mod training;
mod transfer_eval;
mod transfer_several;

use crate::task::Task;
use anyhow::{Context as _, Result, bail};
use caco_kinds::{
    Compare, ExportWeights, Features, ImportWeights, Index, InitBank, InitEncoder, Knn, LinearEval, Pack, Pretrain,
    Synthesize, TransferEval,
};
use caco_learn::device;
use caco_pipeline::kind::Kind as _;
use serde::Serialize;

/// Executes one stage, and records among its by-products the determinism class it ran in, and the device with the reason
/// for it. The reason is not part of the class: the same bits come from a CPU that was asked for and one that was left.
#[tracing::instrument(name = "stage", skip_all, fields(stage = task.stage, kind = task.kind))]
pub fn execute(task: &Task) -> Result<()> {
    dispatch(task)?;
    if task.member.number > 0 {
        return Ok(());
    }
    note(task, "class.json", &device::class())?;
    device::choice().map_or(Ok(()), |choice| note(task, "device.json", &choice))
}

fn note(task: &Task, name: &str, value: &impl Serialize) -> Result<()> {
    let path = task.byproducts.join(name);
    std::fs::write(&path, serde_json::to_vec(value)?).with_context(|| format!("cannot write {}", path.display()))
}

fn dispatch(task: &Task) -> Result<()> {
    match task.kind.as_str() {
        Synthesize::NAME => synthesize::run(task),
        Index::NAME => index::run(task),
        Pack::NAME => pack::run(task),
        InitEncoder::NAME => init_encoder::run(task),
        ImportWeights::NAME => import_weights::run(task),
        InitBank::NAME => init_bank::run(task),
        Pretrain::NAME => pretrain::run(task),
        Features::NAME => features::run(task),
        Knn::NAME => knn::run(task),
        LinearEval::NAME => linear_eval::run(task),
        TransferEval::NAME => transfer_eval::run(task),
        ExportWeights::NAME => export_weights::run(task),
        Compare::NAME => compare::run(task),
        embed::NAME => embed::run(task),
        other => bail!("kind '{other}' is not built in"),
    }
}

/// The libtorch in use, on one line, for `caco doctor`.
pub fn describe_libtorch() -> String {
    let class = device::class();
    let fields = class.as_object().into_iter().flatten();
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    fields.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}
