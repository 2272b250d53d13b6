//! Measures the speed of training on real images for some seconds, reading and computing together.

use super::{
    bench::{RATES, constants, synchronise},
    methods::caco,
    momentum_contrast::MomentumContrast,
};
use crate::{
    device,
    model::{Bank, Shape},
    out_of_memory,
    transfer::{self, Transfer},
};
use anyhow::{Result, ensure};
use caco_data::{Loader, Reading, Transform, batch::Source as _, format, index};
use caco_kinds::{Activations, Determinism, Format, Model, Precision, Views};
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tch::Kind;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// A folder in the ImageFolder layout.
    pub folder: PathBuf,
    /// The network.
    pub model: Model,
    /// The views of each image.
    pub views: Views,
    /// Images per step.
    pub batch: usize,
    /// Columns of the bank.
    pub bank: i64,
    /// Floating-point precision of the encoders.
    pub precision: Precision,
    /// On which machines results have the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Shards into which a batch is cut.
    #[serde(default = "super::bench::one")]
    pub shards: usize,
    /// Which activations are kept for the backward pass.
    pub activations: Activations,
    /// The device: `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Threads per operation, and threads of the loader.
    pub threads: usize,
    /// Seconds to measure, after a quarter as many to warm up.
    pub seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The determinism class of the measurement, as recorded in results.
    pub class: serde_json::Value,
    /// Training images per second.
    pub images_per_second: f64,
    /// Number of steps measured.
    pub steps: u64,
    /// Fraction of the time spent waiting for the loader.
    pub waiting: f64,
    /// Loss of the last step.
    pub loss: f64,
}

/// Trains by the paper's method, epoch after epoch.
pub fn train(setup: &Setup) -> Result<Report> {
    out_of_memory::caught(out_of_memory::TRAINING, || measure(setup))
}

fn measure(setup: &Setup) -> Result<Report> {
    let listing = format::list(Format::ImageFolder, None, &setup.folder)?;
    let (set, unreadable) = index::build(&setup.folder, listing, |_, _| ());
    index::refuse(&unreadable)?;
    let device = device::open(&setup.device, setup.threads, setup.determinism)?;
    let query = Shape::from(&setup.model).draw(0, Kind::Float, device);
    let bank = Bank::draw(setup.model.dim.into(), setup.bank, 0, Kind::Float, device);
    let mut state = MomentumContrast::start(query, bank);
    let constants = constants(setup.precision, setup.activations, setup.shards);
    let transform = Transform::Views(setup.views.list());
    let (batch, threads) = (setup.batch, setup.threads);
    let reading = Reading { transform, batch, shuffle: true, drop_last: true, seed: 0, threads };
    let loader = Loader::new(&set, reading)?.in_memory(transfer::memory(device));
    let views = setup.views.list().len();
    let span = Duration::from_secs_f64(setup.seconds);
    let began = Instant::now();
    let (mut counted, mut waited, mut steps) = (None, Duration::ZERO, 0);
    for epoch in 0.. {
        let mut batches = Transfer::new(loader.epoch(epoch, 0)?, views, device);
        loop {
            let waiting = Instant::now();
            let Some(batch) = batches.next().transpose()? else { break };
            waited += waiting.elapsed();
            let views = batch.views.normalised()?;
            let output = caco::step(&mut state, &views, &constants, RATES, 0, &mut |_| ())?;
            let waiting = Instant::now();
            batches.look_ahead();
            waited += waiting.elapsed();
            let loss = output.loss.double_value(&[]);
            ensure!(loss.is_finite(), "the loss is {loss} at step {}", steps + 1);
            steps += 1;
            synchronise(device);
            match counted {
                // At least two warm-up steps: the first ones allocate memory.
                None if began.elapsed() >= span / 4 && steps >= 2 => {
                    (counted, waited, steps) = (Some(Instant::now()), Duration::ZERO, 0);
                }
                Some(start) if start.elapsed() >= span => {
                    let seconds = start.elapsed().as_secs_f64();
                    return Ok(Report {
                        class: device::class(),
                        images_per_second: (steps * setup.batch as u64) as f64 / seconds,
                        steps,
                        waiting: waited.as_secs_f64() / seconds,
                        loss,
                    });
                }
                _ => {}
            }
        }
    }
    unreachable!("epochs do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_data::synth;
    use caco_kinds::{Arch, Stem};

    #[test]
    fn a_training_is_timed() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = r#"{"classes": 3, "train": 9, "test": 3, "size": 40}"#;
        synth::draw(&serde_json::from_str(drawn).unwrap(), folder.path(), |_, _| ()).unwrap();
        let model = Model { arch: Arch::ResNet18, width: 4, stem: Stem::Cifar, hidden: 8, dim: 8 };
        let setup = Setup {
            folder: folder.path().join("train"),
            model,
            views: Views::MultiCrop { size: 16, small: 8, count: 2 },
            batch: 4,
            bank: 16,
            precision: Precision::F32,
            determinism: Determinism::Fast,
            shards: 2,
            activations: Activations::Recompute,
            device: "cpu".into(),
            threads: 2,
            seconds: 0.2,
        };
        let report = train(&setup).unwrap();
        assert!(report.images_per_second > 0.0 && report.steps > 0 && report.loss > 0.0, "{report:?}");
        assert!((0.0..1.0).contains(&report.waiting), "{report:?}");
    }
}
