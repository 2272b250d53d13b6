//! Loads the images of stages.

use crate::task::Task;
use anyhow::{Context as _, Result};
use caco_data::{Dataset, Loader, Part, Reading, Transform, Turn};
use caco_kinds::{Decode, View};

/// The data set of an index slot: `slot` is the index, `slot.images` the folder that it lists.
#[tracing::instrument(name = "load", skip(task))]
pub fn dataset(task: &Task, slot: &str) -> Result<Dataset> {
    Dataset::open(task.input(slot)?, task.input(&format!("{slot}.images"))?)
}

/// The digest of an index, which identifies the images that it lists and their order.
pub fn images_digest(task: &Task, slot: &str) -> Result<String> {
    let path = task.input(slot)?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// The batches of this process, where several compute one after the other.
pub fn turn(task: &Task) -> Turn {
    Turn { number: task.member.number, of: task.member.of }
}

/// Shuffled batches of random views for training; the last incomplete batch is dropped. Of several processes each reads its
/// part, of every one of the `accumulate` pieces of a batch.
pub fn training_views(
    task: &Task,
    set: &Dataset,
    views: Vec<View>,
    decode: Decode,
    batch: u32,
    accumulate: u32,
    seed: u64,
) -> Result<Loader> {
    let transform = Transform::Views(views);
    let reading =
        Reading { transform, batch: batch as usize, shuffle: true, drop_last: true, seed, threads: task.threads };
    let part = Part { number: task.member.number, of: task.member.of, pieces: accumulate as usize };
    Ok(Loader::new(set, reading)?.decoding(decode).of_part(part))
}
