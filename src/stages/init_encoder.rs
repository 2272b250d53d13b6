//! Kind `init_encoder`: an encoder with its starting weights.

use crate::{device, job::Task, model::Encoder, spec::kind::InitEncoder};
use anyhow::Result;

/// Writes `encoder.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let InitEncoder { model, seed } = task.parameters()?;
    let device = device::open("cpu", task.job.threads)?;
    Encoder::draw(&model, seed, device).save(&task.output("encoder.safetensors"))?;
    task.metrics(&[])
}
