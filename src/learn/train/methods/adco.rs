//! AdCo (Hu et al., CVPR 2021, arXiv 2011.08435): the key of the other view is the positive, and a bank of negatives is
//! trained against the encoder.

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

/// AdCo.
#[derive(Debug)]
pub struct AdCo {
    state: MomentumContrast,
    constants: Constants,
    parameters: kinds::AdCo,
    recipe: Recipe,
}

impl AdCo {
    /// Starts with this state.
    pub fn new(state: MomentumContrast, parameters: &kinds::AdCo, recipe: Recipe) -> Self {
        let &kinds::AdCo { temperature, bank_temperature, bank_momentum, .. } = parameters;
        let contrast = Contrast { objective: Objective::KeyPositive, temperature, bank_temperature };
        let constants = Constants { contrast, bank_momentum, rule: recipe.rule, compute: recipe.compute };
        AdCo { state, constants, parameters: parameters.clone(), recipe }
    }
}

impl Method for AdCo {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let kinds::AdCo { bank_rate: bank, key_momentum, symmetric, .. } = self.parameters;
        let rate = self.recipe.rate(at.epoch);
        let pairing = if symmetric { Pairing::all(views.len()) } else { Pairing::one_way() };
        let rates = Rates { encoder: rate, bank, key_momentum };
        let learnt = self.state.learn(views, pairing, &self.constants, rates, lap)?;
        Ok(StepOutput { rates: vec![("rate", rate), ("bank_rate", bank)], ..learnt.output })
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
