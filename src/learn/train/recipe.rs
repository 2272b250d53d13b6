//! How the encoder of a training moves: the optimizer, and its learning rate over the epochs.

use super::{compute::Compute, optimizer::Rule};
use crate::{bridge::Lars, schedule};
use caco_kinds::{Optimizer, Pretrain, Published};

/// The optimizer of a training's encoder, its rates, and how its steps are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// The optimizer.
    pub rule: Rule,
    /// The highest learning rate.
    pub rate: f64,
    /// The factor by which it falls.
    pub falls: f64,
    /// Epochs of linear warm-up.
    pub warmup: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// How steps are computed.
    pub compute: Compute,
}

impl From<&Pretrain> for Recipe {
    fn from(stage: &Pretrain) -> Self {
        let Published { optimizer, rate, falls, warmup, weight_decay } = stage.recipe();
        let &Pretrain { momentum, trust, batch, epochs, .. } = stage;
        let rule = match optimizer {
            Optimizer::Lars => Rule::Lars(Lars { momentum, weight_decay, trust }),
            Optimizer::Sgd => Rule::Sgd { momentum, weight_decay },
        };
        Recipe {
            rule,
            rate: scaled(rate, batch),
            falls,
            warmup: warmup.into(),
            epochs: epochs.into(),
            compute: stage.into(),
        }
    }
}

impl Recipe {
    /// The learning rate of an epoch.
    pub fn rate(&self, epoch: u64) -> f64 {
        schedule::warm_cosine(self.rate, self.rate / self.falls, self.warmup, self.epochs, epoch)
    }
}

/// The rate for a batch size, given the rate per 256 images (Goyal et al. 2017).
pub fn scaled(rate: f64, batch: u32) -> f64 {
    rate * f64::from(batch) / 256.0
}
