//! Kind `compare`: a comparison of metrics.

use crate::task::Task;
use anyhow::{Context as _, Result};
use caco_kinds::Compare;
use caco_report::assemble;
use std::fs;

/// Writes `comparison.json`, `.md`, `.csv` and `.tex`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Compare = task.parameters()?;
    let comparison = assemble::compare(&parameters, &|slot| task.input(slot).map(Into::into))?;
    for (name, text) in comparison.files()? {
        let path = task.output(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    task.metrics(&[])
}
