//! Kind `init_encoder`: an encoder with its initial weights.

use crate::task::Task;
use anyhow::Result;
use caco_kinds::InitEncoder;
use caco_learn::{device, model::Encoder};

/// Writes `encoder.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let InitEncoder { model, seed } = task.parameters()?;
    let device = device::open("cpu", task.threads)?;
    Encoder::draw(&model, seed, device).save(&task.output("encoder.safetensors"))?;
    task.metrics(&[])
}
