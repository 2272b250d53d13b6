//! CaCo (Wang et al., TPAMI 2023, arXiv 2203.14370), its ablations, and its bank initialisation.

use crate::{
    bridge::Lars,
    model::{Bank, Network},
    schedule,
    train::{
        contrast::{Contrast, Target},
        method::{At, Changed, Lap, Method, StepOutput},
        momentum_contrast::{Constants, MomentumContrast, Pairing, Rates},
        optimizer::Rule,
        recipe::{self, Recipe},
    },
};
use anyhow::{Result, ensure};
use caco_kinds::{self as kinds, InitBank, Objective, Pretrain};
use tch::Tensor;

/// Pre-training from an initialised bank.
#[derive(Debug)]
pub struct CaCo {
    state: MomentumContrast,
    constants: Constants,
    parameters: kinds::CaCo,
    recipe: Recipe,
}

impl CaCo {
    /// Starts from the state of a bank initialisation.
    pub fn new(state: MomentumContrast, parameters: &kinds::CaCo, stage: &Pretrain) -> Self {
        let recipe = Recipe::from(stage);
        let &kinds::CaCo { objective, temperature, bank_temperature, bank_momentum, .. } = parameters;
        let contrast = Contrast { objective, temperature, bank_temperature };
        let constants = Constants { contrast, bank_momentum, rule: recipe.rule, compute: recipe.compute };
        CaCo { state, constants, parameters: parameters.clone(), recipe }
    }

    fn rates(&self, epoch: u64) -> Rates {
        let kinds::CaCo { bank_rate, bank_rate_final, key_momentum, .. } = self.parameters;
        let Recipe { warmup, epochs, .. } = self.recipe;
        let last = bank_rate_final.unwrap_or(bank_rate);
        Rates {
            encoder: self.recipe.rate(epoch),
            bank: schedule::warm_cosine(bank_rate, last, warmup, epochs, epoch),
            key_momentum: schedule::key_momentum(key_momentum, epochs, epoch),
        }
    }
}

impl Method for CaCo {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let rates = self.rates(at.epoch);
        step(&mut self.state, views, &self.constants, rates, at.number, lap)
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

/// One step, on views of which the first two are the large ones. `number` counts the steps from 0; it locates the oldest
/// key of a queue.
pub fn step(
    state: &mut MomentumContrast,
    views: &[Tensor],
    constants: &Constants,
    rates: Rates,
    number: u64,
    lap: Lap,
) -> Result<StepOutput> {
    ensure!(views.len() >= 2, "a step needs two views, it got {}", views.len());
    let learnt = state.learn(views, Pairing::all(views.len()), constants, rates, lap)?;
    if constants.contrast.objective == Objective::Queue {
        state.bank.enqueue_batch(number, &learnt.keys);
    }
    Ok(named(learnt.output, rates))
}

/// The bank initialisation.
#[derive(Debug)]
pub struct Initialisation {
    state: MomentumContrast,
    constants: Constants,
    rates: Rates,
    batch: i64,
}

impl Initialisation {
    /// Starts with a drawn encoder and bank. The full rate without warm-up.
    pub fn new(query: Network, bank: Bank, stage: &InitBank) -> Self {
        let &InitBank { temperature, momentum, weight_decay, trust, batch, rate, key_momentum, .. } = stage;
        let contrast = Contrast { objective: Objective::Queue, temperature, bank_temperature: temperature };
        let rule = Rule::Lars(Lars { momentum, weight_decay, trust });
        Initialisation {
            state: MomentumContrast::start(query, bank),
            constants: Constants { contrast, bank_momentum: 0.0, rule, compute: stage.into() },
            rates: Rates { encoder: recipe::scaled(rate, batch), bank: 0.0, key_momentum },
            batch: batch.into(),
        }
    }
}

impl Method for Initialisation {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        init_step(&mut self.state, views, &self.constants, self.rates, at.number as i64 * self.batch, lap)
    }

    fn changed(&self) -> Vec<Changed> {
        self.state.changed()
    }

    fn encoder(&self) -> &Network {
        &self.state.query
    }

    fn finish(&mut self) {
        finish_init(&mut self.state);
    }
}

/// One step of the bank initialisation on two views: the first view's query against the second's key and the bank, at
/// `constants.contrast.temperature`; then the keys of the second view fill the bank starting at column `start`.
pub fn init_step(
    state: &mut MomentumContrast,
    views: &[Tensor],
    constants: &Constants,
    rates: Rates,
    start: i64,
    lap: Lap,
) -> Result<StepOutput> {
    ensure!(views.len() == 2, "the bank initialisation takes two views, it got {}", views.len());
    // The second view's query is compared with nothing, but batch norm sees it.
    let targets = vec![Target { query: 0, keys: vec![1], share: 1.0 }];
    let pairing = Pairing { queries: vec![0], seen: vec![1], keys: vec![0, 1], targets };
    // The key is the positive and the bank is not updated: the loss of a queue, which is filled below.
    let contrast = Contrast { objective: Objective::Queue, ..constants.contrast };
    let learnt = state.learn(views, pairing, &Constants { contrast, ..*constants }, rates, lap)?;
    let keys = &learnt.keys[1];
    let free = (state.bank.size() - start).min(keys.size()[0]);
    state.bank.enqueue(start, &keys.narrow(0, 0, free));
    Ok(named(learnt.output, rates))
}

/// Finishes the bank initialisation by setting the parameters of f_k to those of f_q.
pub fn finish_init(state: &mut MomentumContrast) {
    state.key.weights_mut().copy_parameters(state.query.weights());
}

fn named(output: StepOutput, rates: Rates) -> StepOutput {
    let Rates { encoder, bank, key_momentum } = rates;
    StepOutput { rates: vec![("rate", encoder), ("bank_rate", bank), ("key_momentum", key_momentum)], ..output }
}
