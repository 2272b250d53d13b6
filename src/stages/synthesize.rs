//! Kind `synthesize`: a drawn, labelled image set.

use super::{pool::pool, progress::counted};
use crate::{data::synth, job::Task, spec::kind::Synthesize};
use anyhow::Result;

/// Writes the folders `train` and `test`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Synthesize = task.parameters()?;
    pool(task.job.threads)?.install(|| synth::draw(&parameters, &task.job.out, counted(task, "images")))
}
