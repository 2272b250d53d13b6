//! Kind `pack`: packs the images of an index into one file.

use super::{pool::pool, progress::counted, reading::dataset};
use crate::task::Task;
use anyhow::Result;
use caco_data::pack;
use caco_kinds::Pack;
use caco_measure::metric::Metric;

/// Writes `index.jsonl`, and the file `images/images.bin` that it describes.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Pack = task.parameters()?;
    let set = dataset(task, "index")?;
    let report = counted(task, "images");
    let packed = pool(task.threads)?.install(|| pack::pack(&set, &parameters, &task.output("images"), report))?;
    packed.save(&task.output("index.jsonl"), &[])?;
    let bytes: u64 = packed.images.iter().map(|image| image.bytes).sum();
    let count = |name: &str, n: f64| Metric::new(name, "all", n);
    task.metrics(&[count("images", packed.images.len() as f64), count("bytes", bytes as f64)])
}
