//! The two trainings as procedures for the loop: pre-training, and the bank initialisation before it.

use super::{
    caco::{Constants, Rates, State, StepOutput},
    contrast::Contrast,
    fit::Procedure,
};
use crate::{bridge::Lars, schedule};
use anyhow::Result;
use caco_kinds::{Collapse, InitBank, Objective, Pretrain};
use tch::Tensor;

/// The rate for a batch size, given the rate per 256 images (Goyal et al. 2017).
fn scaled(rate: f64, batch: u32) -> f64 {
    rate * f64::from(batch) / 256.0
}

impl Procedure for Pretrain {
    fn epochs(&self) -> u64 {
        self.epochs.into()
    }

    fn steps(&self, batches: u64) -> u64 {
        batches
    }

    fn collapse(&self) -> Collapse {
        self.collapse
    }

    fn views(&self) -> usize {
        self.views.list().len()
    }

    fn rates(&self, epoch: u64) -> Rates {
        let (warmup, epochs) = (self.warmup.into(), self.epochs.into());
        let rate = scaled(self.rate, self.batch);
        let bank_last = self.bank_rate_final.unwrap_or(self.bank_rate);
        Rates {
            encoder: schedule::warm_cosine(rate, rate / 100.0, warmup, epochs, epoch),
            bank: schedule::warm_cosine(self.bank_rate, bank_last, warmup, epochs, epoch),
            key_momentum: schedule::key_momentum(self.key_momentum, epochs, epoch),
        }
    }

    fn step(&self, state: &mut State, views: &[Tensor], rates: Rates, done: u64) -> Result<StepOutput> {
        let contrast = Contrast {
            objective: self.objective,
            temperature: self.temperature,
            bank_temperature: self.bank_temperature,
        };
        let lars = Lars { momentum: self.momentum, weight_decay: self.weight_decay, trust: self.trust };
        let constants = Constants {
            contrast,
            bank_momentum: self.bank_momentum,
            lars,
            precision: self.precision,
            activations: self.activations,
            accumulate: self.accumulate.into(),
            shards: self.shards as usize,
        };
        state.step(views, &constants, rates, done)
    }
}

impl Procedure for InitBank {
    fn epochs(&self) -> u64 {
        1
    }

    /// As many as fill the bank, or all batches: columns that one pass cannot fill stay random.
    fn steps(&self, batches: u64) -> u64 {
        batches.min(u64::from(self.bank_size).div_ceil(self.batch.into()))
    }

    fn collapse(&self) -> Collapse {
        Collapse::Stop
    }

    fn views(&self) -> usize {
        2
    }

    /// The full rate without warm-up.
    fn rates(&self, _epoch: u64) -> Rates {
        Rates { encoder: scaled(self.rate, self.batch), bank: 0.0, key_momentum: self.key_momentum }
    }

    fn step(&self, state: &mut State, views: &[Tensor], rates: Rates, done: u64) -> Result<StepOutput> {
        let contrast =
            Contrast { objective: Objective::Queue, temperature: self.temperature, bank_temperature: self.temperature };
        let lars = Lars { momentum: self.momentum, weight_decay: self.weight_decay, trust: self.trust };
        let constants = Constants {
            contrast,
            bank_momentum: 0.0,
            lars,
            precision: self.precision,
            activations: self.activations,
            accumulate: self.accumulate.into(),
            shards: self.shards as usize,
        };
        state.init_step(views, &constants, rates, done as i64 * i64::from(self.batch))
    }
}
