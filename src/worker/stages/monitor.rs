//! The kNN accuracy monitored during pre-training (Wu et al. 2018): a fixed fraction of the training images votes on
//! the images of another index. It does not affect training.

use super::reading::dataset;
use crate::{pulse::Pulse, task::Task};
use anyhow::{Result, ensure};
use caco_data::{Dataset, Loader, Reading, Transform, batch::Source as _};
use caco_kinds::{Filter, Pretrain, Stem};
use caco_learn::{
    eval::knn::{Vote, sample, top1},
    model::Encoder,
    transfer::{self, Transfer},
};
use std::sync::Arc;
use tch::{Device, Tensor};

/// The images to evaluate on, and when.
pub struct Monitor {
    voters: Loader,
    guessed: Loader,
    vote: Vote,
    every: u64,
    epochs: u64,
    device: Device,
    pulse: Arc<Pulse>,
}

impl Monitor {
    /// The monitor that `parameters` specify, if any. An error if the two indices have different classes.
    pub fn open(task: &Task, parameters: &Pretrain, train: &Dataset, device: Device) -> Result<Option<Self>> {
        let Some(wanted) = &parameters.monitor else { return Ok(None) };
        let guessed = dataset(task, "monitor")?;
        ensure!(
            guessed.classes == train.classes,
            "the monitor's images have different classes than the training images:\n  {:?}\n  {:?}",
            guessed.classes,
            train.classes
        );
        let drawn = sample(train.images.len(), wanted.share, parameters.seed);
        let voters = train.subset(&drawn.iter().map(|&image| image as u32).collect::<Vec<_>>());
        let loader = |set: &Dataset| {
            let transform = centre(parameters);
            let reading =
                Reading { transform, batch: 256, shuffle: false, drop_last: false, seed: 0, threads: task.threads };
            Ok::<_, anyhow::Error>(Loader::new(set, reading)?.in_memory(transfer::memory(device)))
        };
        Ok(Some(Monitor {
            voters: loader(&voters)?,
            guessed: loader(&guessed)?,
            vote: Vote { k: wanted.k, temperature: wanted.temperature },
            every: wanted.every.into(),
            epochs: parameters.epochs.into(),
            device,
            pulse: task.pulse.clone(),
        }))
    }

    /// The accuracy after `epoch` (from 0), if it is due: at the given interval, and after the last epoch.
    pub fn look(&self, epoch: u64, encoder: &Encoder, parameters: &Pretrain) -> Result<Option<f64>> {
        let (done, last) = (epoch + 1, epoch + 1 == self.epochs);
        if !last && !done.is_multiple_of(self.every) {
            return Ok(None);
        }
        let features = |loader: &Loader| -> Result<(Tensor, Vec<i64>)> {
            let (mut features, mut labels) = (Vec::new(), Vec::new());
            let (mut batches, mut number) = (Transfer::new(loader.epoch(0, 0)?, 1, self.device), 0);
            while let Some(batch) = batches.next().transpose()? {
                number += 1;
                self.pulse.begin("batch of the monitor", number);
                features.push(encoder.features(&batch.views.first()?, parameters.precision));
                labels.extend(batch.labels);
                batches.look_ahead();
            }
            self.pulse.rest();
            Ok((Tensor::cat(&features, 0), labels))
        };
        let (voters, votes) = features(&self.voters)?;
        let (guessed, right) = features(&self.guessed)?;
        Ok(Some(top1(&voters, &votes, &guessed, &right, self.vote)?))
    }
}

/// The centre of the image at the size of the large views: 7/8 of the short side as on ImageNet (224 of 256), or all of
/// it for the small images of the Cifar stem.
fn centre(parameters: &Pretrain) -> Transform {
    let crop = parameters.views.list()[0].size();
    let resize = if parameters.model.stem == Stem::Cifar { crop } else { crop * 8 / 7 };
    Transform::Centre { resize, crop, filter: Filter::Bilinear }
}
