//! Kind `pretrain`: contrastive pre-training.

use super::{
    monitor::Monitor,
    reading::{dataset, training_views},
    training::train,
};
use crate::{task::Task, team};
use anyhow::{Result, ensure};
use caco_kinds::{Model, Pretrain};
use caco_learn::{
    device,
    model::Encoder,
    tensors::Tensors,
    train::{checkpoint::Saved, curve, method::Method, methods},
    transfer,
};
use caco_measure::metric::Metric;
use tch::Device;

/// Writes `encoder.safetensors`, `curve.jsonl` and, if the method has a bank, `bank.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Pretrain = task.parameters()?;
    let device = device::open(&task.device, task.threads, parameters.determinism)?;
    team::join(&task.member, device)?;
    let set = dataset(task, "index")?;
    let views = parameters.views.list();
    let Pretrain { decode, batch, accumulate, seed, .. } = parameters;
    let source =
        &training_views(task, &set, views, decode, batch, accumulate, seed)?.in_memory(transfer::memory(device));
    let monitor = match task.member.number {
        0 => Monitor::open(task, &parameters, &set, device)?,
        _ => None,
    };
    let look = &mut |epoch, encoder: &Encoder| match &monitor {
        Some(monitor) => monitor.look(epoch, encoder, &parameters),
        None => Ok(None),
    };
    let method = begin(task, &parameters, device)?;
    let (method, curve) = train(task, &parameters.model, (&parameters).into(), method, source, device, look)?;
    let Some(curve) = curve else { return Ok(()) };
    let path = task.output("curve.jsonl");
    curve.copy(&path)?;
    if let Some(bank) = method.bank() {
        let mut file = Tensors::default();
        file.insert("columns", &bank.columns);
        file.write(&task.output("bank.safetensors"))?;
    }
    let encoder = Encoder { model: parameters.model.clone(), network: method.encoder().share() };
    encoder.save(&task.output("encoder.safetensors"))?;
    let rows = curve::read(&path)?;
    let last = u64::from(parameters.epochs) - 1;
    let mean = |name: &str| {
        let values: Vec<f64> = rows.iter().filter(|row| row.epoch == last).filter_map(|row| row.get(name)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let metric = |name| mean(name).map(|value| Metric::new(name, "train", value));
    let knn = rows.last().and_then(|row| row.knn).map(|knn| Metric::new("knn", "val", knn));
    let metrics: Vec<Metric> = [metric("loss"), metric("positive"), knn].into_iter().flatten().collect();
    task.metrics(&metrics)
}

/// The method with its initial state.
fn begin(task: &Task, parameters: &Pretrain, device: Device) -> Result<Box<dyn Method>> {
    let init = match parameters.method.parameters().init() {
        Some(init) => Some(initialised(task, init, &parameters.model)?),
        None => None,
    };
    methods::begin(parameters, init, device)
}

/// The state written by the bank initialisation.
fn initialised(task: &Task, init: &str, model: &Model) -> Result<Saved> {
    let saved = Saved::read(task.input("init")?)?;
    ensure!(
        saved.model == *model,
        "the bank initialisation '{init}' is of another model:\n  it has {:?}\n  this stage has {model:?}\n\
         give both stages the same `model`",
        saved.model
    );
    Ok(saved)
}
