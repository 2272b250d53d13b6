//! `caco embed`: features of the images of any folder. Not a stage of a pipeline, but executed like one: the parameters
//! are those of kind `features`, the inputs `encoder` and `images`.

use super::{features::features_of, pool::pool, progress::counted};
use crate::task::Task;
use anyhow::{Context as _, Result};
use caco_data::{format, index};
use caco_learn::{
    eval::{features::Features, npy},
    tensors::Tensors,
};
use std::fs;

/// Used in a job in place of a stage kind.
pub const NAME: &str = "embed";

/// Writes `embedding.safetensors`: `features` f32 [n, d], and in its metadata `paths`, a JSON list of n. Also writes
/// the same as `embedding.npy` and `embedding.txt`, with one path per line.
pub fn run(task: &Task) -> Result<()> {
    let root = task.input("images")?;
    let listing = format::flat(root)?;
    let (set, unreadable) = pool(task.threads)?.install(|| index::build(root, listing, counted(task, "images")));
    index::refuse(&unreadable)?;
    let digest = blake3::hash(&serde_json::to_vec(&set.images)?).to_hex().to_string();
    features_of(task, &set, digest)?;
    let extracted = task.output("features.safetensors");
    let found = Features::read(&extracted)?.features;
    let paths: Vec<&str> = set.images.iter().map(|image| image.path.as_str()).collect();
    let mut file = Tensors::default();
    file.insert("features", &found);
    file.metadata.insert("paths".into(), serde_json::to_string(&paths)?);
    file.write(&task.output("embedding.safetensors"))?;
    npy::write(&task.output("embedding.npy"), &found)?;
    let list = task.output("embedding.txt");
    fs::write(&list, paths.join("\n") + "\n").with_context(|| format!("cannot write {}", list.display()))?;
    fs::remove_file(&extracted).with_context(|| format!("cannot remove {}", extracted.display()))
}
