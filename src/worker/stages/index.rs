//! Kind `index`: lists the images of a data set.

use super::{pool::pool, progress::counted};
use crate::task::Task;
use anyhow::Result;
use caco_data::{format, index};
use caco_kinds::{Index, Unreadable};
use caco_measure::metric::Metric;

/// Writes `index.jsonl`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Index = task.parameters()?;
    let root = task.input("root")?;
    let listing = format::list(parameters.format, parameters.split, root)?;
    let (set, unreadable) = pool(task.threads)?.install(|| index::build(root, listing, counted(task, "images")));
    if parameters.unreadable == Unreadable::Fail {
        index::refuse(&unreadable)?;
    }
    for file in &unreadable {
        tracing::warn!("left out: {}: {}", file.path, file.unreadable);
    }
    set.save(&task.output("index.jsonl"), &unreadable)?;
    let count = |name: &str, n: usize| Metric::new(name, "all", n as f64);
    task.metrics(&[
        count("images", set.images.len()),
        count("classes", set.classes.len()),
        count("unreadable", unreadable.len()),
    ])
}
