//! Kind `synthesize`: draws a labelled image set.

use super::{pool::pool, progress::counted};
use crate::task::Task;
use anyhow::Result;
use caco_data::synth;
use caco_kinds::Synthesize;

/// Writes the folders `train` and `test`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Synthesize = task.parameters()?;
    pool(task.threads)?.install(|| synth::draw(&parameters, &task.out, counted(task, "images")))
}
