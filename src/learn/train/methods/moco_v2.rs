//! MoCo v2 (Chen et al. 2020, arXiv 2003.04297): the key of the other view is the positive, a queue of earlier keys the
//! negatives. Without shuffling batch norm between devices: f_k sees the batch that f_q sees.

use crate::{
    model::{Bank, Network},
    train::{
        contrast::Contrast,
        method::{At, Changed, Lap, Method, StepOutput},
        momentum_contrast::{Constants, MomentumContrast, Pairing, Rates},
        recipe::Recipe,
    },
};
use anyhow::Result;
use caco_kinds::{self as kinds, Objective};
use tch::Tensor;

/// MoCo v2.
#[derive(Debug)]
pub struct MoCoV2 {
    state: MomentumContrast,
    constants: Constants,
    parameters: kinds::MoCoV2,
    recipe: Recipe,
}

impl MoCoV2 {
    /// Starts with this state, whose bank is the queue.
    pub fn new(state: MomentumContrast, parameters: &kinds::MoCoV2, recipe: Recipe) -> Self {
        let temperature = parameters.temperature;
        let contrast = Contrast { objective: Objective::Queue, temperature, bank_temperature: temperature };
        let constants = Constants { contrast, bank_momentum: 0.0, rule: recipe.rule, compute: recipe.compute };
        MoCoV2 { state, constants, parameters: parameters.clone(), recipe }
    }
}

impl Method for MoCoV2 {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let kinds::MoCoV2 { key_momentum, symmetric, .. } = self.parameters;
        let rate = self.recipe.rate(at.epoch);
        let pairing = if symmetric { Pairing::all(2) } else { Pairing::one_way() };
        let rates = Rates { encoder: rate, bank: 0.0, key_momentum };
        let learnt = self.state.learn(views, pairing, &self.constants, rates, lap)?;
        self.state.bank.enqueue_batch(at.number, &learnt.keys);
        Ok(StepOutput { rates: vec![("rate", rate)], ..learnt.output })
    }

    fn changed(&self) -> Vec<Changed> {
        self.state.changed()
    }

    fn encoder(&self) -> &Network {
        &self.state.query
    }

    fn bank(&self) -> Option<&Bank> {
        Some(&self.state.bank)
    }
}
