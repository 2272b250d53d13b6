//! Kind `pretrain`: contrastive pre-training.

use super::{
    monitor::Monitor,
    reading::{dataset, training_views},
    training::train,
};
use crate::task::Task;
use anyhow::{Result, ensure};
use caco_kinds::Pretrain;
use caco_learn::{
    device,
    model::Encoder,
    tensors::Tensors,
    train::{
        caco::State,
        checkpoint::{self, Checkpoint},
        curve,
    },
    transfer,
};
use caco_measure::metric::Metric;
use tch::Device;

/// Writes `encoder.safetensors`, `bank.safetensors` and `curve.jsonl`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Pretrain = task.parameters()?;
    let device = device::open(&task.device, task.threads, parameters.determinism)?;
    let set = dataset(task, "index")?;
    let views = parameters.views.list();
    let source = &training_views(task, &set, views, parameters.decode, parameters.batch, parameters.seed)?
        .in_memory(transfer::memory(device));
    let monitor = Monitor::open(task, &parameters, &set, device)?;
    let look = &mut |epoch, encoder: &Encoder| match &monitor {
        Some(monitor) => monitor.look(epoch, encoder, &parameters),
        None => Ok(None),
    };
    let start = || initialised(task, &parameters, device);
    let (state, curve) = train(task, &parameters.model, &parameters, source, device, start, look)?;
    let path = task.output("curve.jsonl");
    curve.copy(&path)?;
    let mut bank = Tensors::default();
    bank.insert("columns", &state.bank.columns);
    bank.write(&task.output("bank.safetensors"))?;
    let encoder = Encoder { model: parameters.model.clone(), network: state.query };
    encoder.save(&task.output("encoder.safetensors"))?;
    let rows = curve::read(&path)?;
    let last = u64::from(parameters.epochs) - 1;
    let mean = |of: fn(&curve::Row) -> f64| {
        let values: Vec<f64> = rows.iter().filter(|row| row.epoch == last).map(of).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let knn = rows.last().and_then(|row| row.knn).map(|knn| Metric::new("knn", "val", knn));
    let mut metrics = vec![
        Metric::new("loss", "train", mean(|row| row.loss)),
        Metric::new("positive", "train", mean(|row| row.positive)),
    ];
    metrics.extend(knn);
    task.metrics(&metrics)
}

/// The state written by the bank initialisation.
fn initialised(task: &Task, parameters: &Pretrain, device: Device) -> Result<State> {
    let path = task.input("init")?;
    let Checkpoint { model, state, .. } = checkpoint::load(path, device)?;
    ensure!(
        model == parameters.model,
        "the bank initialisation '{}' is of another model:\n  it has {model:?}\n  this stage has {:?}\n\
         give both stages the same `model`",
        parameters.init,
        parameters.model
    );
    Ok(state)
}
