//! Kind `init_bank`: fills the bank with keys while training the encoders.

use super::{
    reading::{dataset, training_views},
    training::train,
};
use crate::{task::Task, team};
use anyhow::{Context as _, Result};
use caco_kinds::InitBank;
use caco_learn::{
    device,
    model::{Bank, Shape},
    train::{
        checkpoint::{self, Position},
        curve,
        methods::caco::Initialisation,
    },
    transfer,
};
use caco_measure::metric::Metric;
use tch::Kind;

/// The purpose for which views are drawn. Otherwise the first epoch would show the very views whose keys fill the bank.
const INIT_VIEW: &str = "init view";

/// Writes `state.safetensors`: the state from which pre-training starts.
pub fn run(task: &Task) -> Result<()> {
    let parameters: InitBank = task.parameters()?;
    let device = device::open(&task.device, task.threads, parameters.determinism)?;
    team::join(&task.member, device)?;
    let set = dataset(task, "index")?;
    let mut views = parameters.views.list();
    views.truncate(2);
    let InitBank { decode, batch, accumulate, seed, .. } = parameters;
    let source = &training_views(task, &set, views, decode, batch, accumulate, seed)?
        .drawing(INIT_VIEW)
        .in_memory(transfer::memory(device));
    let InitBank { ref model, bank_size, .. } = parameters;
    let query = Shape::from(model).draw(seed, Kind::Float, device);
    let bank = Bank::draw(model.dim.into(), bank_size.into(), seed, Kind::Float, device);
    let method = Box::new(Initialisation::new(query, bank, &parameters));
    let (method, curve) = train(task, model, (&parameters).into(), method, source, device, &mut |_, _| Ok(None))?;
    let Some(curve) = curve else { return Ok(()) };
    checkpoint::save(&task.output("state.safetensors"), model, Position::default(), &method.changed())?;
    let kept = task.byproducts.join("curve.jsonl");
    curve.copy(&kept)?;
    let last = curve::read(&kept)?.pop().context("the bank initialisation took no step")?;
    let loss = last.get("loss").context("a step has a loss")?;
    task.metrics(&[Metric::new("loss", "train", loss)])
}
