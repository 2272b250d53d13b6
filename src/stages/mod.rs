//! One file a stage kind: resolved parameters and input paths → output files and metrics. The only place that sees both
//! the engine's words ([`Task`]) and the experiment half.

mod compare;
mod embed;
mod features;
mod index;
mod init_bank;
mod init_encoder;
mod knn;
mod linear_eval;
mod pretrain;
mod synthesize;
mod training;
mod transfer_eval;
mod transfer_several;

use crate::{
    data::{Dataset, Loader, Reading, Transform},
    job::{Progress, Task},
    spec::kind::{
        Compare, Features, Index, InitBank, InitEncoder, Kind as _, Knn, LinearEval, Pretrain, Synthesize,
        TransferEval, View,
    },
};
use anyhow::{Context as _, Result, bail};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Executes one stage, and leaves the determinism class under which it ran among its by-products.
pub fn execute(task: &Task) -> Result<()> {
    dispatch(task)?;
    let path = task.job.byproducts.join("class.json");
    let class = serde_json::to_vec(&crate::device::class())?;
    std::fs::write(&path, class).with_context(|| format!("cannot write {}", path.display()))
}

fn dispatch(task: &Task) -> Result<()> {
    match task.job.kind.as_str() {
        Synthesize::NAME => synthesize::run(task),
        Index::NAME => index::run(task),
        InitEncoder::NAME => init_encoder::run(task),
        InitBank::NAME => init_bank::run(task),
        Pretrain::NAME => pretrain::run(task),
        Features::NAME => features::run(task),
        Knn::NAME => knn::run(task),
        LinearEval::NAME => linear_eval::run(task),
        TransferEval::NAME => transfer_eval::run(task),
        Compare::NAME => compare::run(task),
        crate::job::EMBED => embed::run(task),
        other => bail!("kind '{other}' is not built in"),
    }
}

/// The data set of an index slot: `slot` holds the index, `slot.images` the folder that it lists.
fn dataset(task: &Task, slot: &str) -> Result<Dataset> {
    Dataset::open(task.input(slot)?, task.input(&format!("{slot}.images"))?)
}

/// The digest of an index, which names the images that it lists, in order.
fn images_digest(task: &Task, slot: &str) -> Result<String> {
    let path = task.input(slot)?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// Shuffled batches of random views, the last incomplete batch dropped: what training reads.
fn training_views(task: &Task, set: &Dataset, views: Vec<View>, batch: u32, seed: u64) -> Result<Loader> {
    let transform = Transform::Views(views);
    Loader::new(
        set,
        Reading { transform, batch: batch as usize, shuffle: true, drop_last: true, seed, threads: task.job.threads },
    )
}

/// A thread pool of the size that the stage was given.
fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")
}

/// Tells the task's progress in these units, a few times a second.
fn counted<'t>(task: &'t Task, unit: &'static str) -> impl Fn(u64, u64) + Sync + 't {
    const PAUSE: Duration = Duration::from_millis(200);
    let told = Mutex::new(Instant::now());
    move |done, total| {
        if let Ok(mut told) = told.try_lock()
            && told.elapsed() >= PAUSE
        {
            *told = Instant::now();
            task.progress(&Progress { done, total, unit: unit.into(), note: String::new() });
        }
    }
}

/// The libtorch in use, in one line, for `caco doctor`.
pub fn describe_libtorch() -> String {
    let class = crate::device::class();
    let fields = class.as_object().into_iter().flatten();
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    fields.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}
