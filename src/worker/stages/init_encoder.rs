//! Kind `init_encoder`: an encoder with its initial weights.

use crate::task::Task;
use anyhow::Result;
use caco_kinds::{Determinism, InitEncoder};
use caco_learn::{device, model::Encoder};

/// Writes `encoder.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let InitEncoder { model, seed } = task.parameters()?;
    let device = device::open("cpu", task.threads, Determinism::Fast)?;
    Encoder::draw(&model, seed, device).save(&task.output("encoder.safetensors"))?;
    task.metrics(&[])
}
