//! How the encoder of a training moves: the optimizer, and its learning rate over the epochs.

use super::optimizer::Rule;
use crate::{bridge::Lars, schedule};
use caco_kinds::{Optimizer, Pretrain, Published};

/// The optimizer of a training's encoder, and its rates.
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
}

impl Recipe {
    /// The recipe of a stage.
    pub fn of(stage: &Pretrain) -> Self {
        let Published { optimizer, rate, falls, warmup, weight_decay } = stage.recipe();
        let &Pretrain { momentum, trust, batch, epochs, .. } = stage;
        let rule = match optimizer {
            Optimizer::Lars => Rule::Lars(Lars { momentum, weight_decay, trust }),
            Optimizer::Sgd => Rule::Sgd { momentum, weight_decay },
        };
        Recipe { rule, rate: scaled(rate, batch), falls, warmup: warmup.into(), epochs: epochs.into() }
    }

    /// The learning rate of an epoch.
    pub fn rate(&self, epoch: u64) -> f64 {
        schedule::warm_cosine(self.rate, self.rate / self.falls, self.warmup, self.epochs, epoch)
    }
}

/// The rate for a batch size, given the rate per 256 images (Goyal et al. 2017).
pub fn scaled(rate: f64, batch: u32) -> f64 {
    rate * f64::from(batch) / 256.0
}
