//! One step of CaCo (Wang et al., TPAMI 2023), and one of its bank initialisation.

use super::contrast::{Answer, Compared, Contrast, Target, targets};
use crate::{
    bridge::{self, Lars},
    model::{Bank, Network},
};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Activations, Objective, Precision};
use tch::{Tensor, no_grad};

/// Everything that training changes.
#[derive(Debug)]
pub struct State {
    /// f_q, trained by LARS.
    pub query: Network,
    /// f_k, its moving average. It runs in training mode and keeps its own batch-norm statistics.
    pub key: Network,
    /// The bank.
    pub bank: Bank,
    /// LARS momentum, one tensor a parameter of f_q.
    pub momentum: Vec<Tensor>,
}

/// What stays the same over all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// The loss.
    pub contrast: Contrast,
    /// Momentum of the bank's update.
    pub bank_momentum: f64,
    /// The encoder's optimizer.
    pub lars: Lars,
    /// Arithmetic of the encoders.
    pub precision: Precision,
    /// What is kept of f_q's forward passes for its gradient.
    pub activations: Activations,
    /// Equal parts that a batch goes through the encoders in, for want of memory: gradients, bank and queue see the whole
    /// batch, but batch norm a part at a time, so its statistics are those of fewer images and move as often more.
    pub accumulate: i64,
}

/// What changes by epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate of the encoder.
    pub encoder: f64,
    /// Learning rate of the bank, η_b.
    pub bank: f64,
    /// Momentum of the key encoder, m.
    pub key_momentum: f64,
}

/// What a step tells, scalars on its device. Reading one waits for the device.
#[derive(Debug)]
pub struct Told {
    /// The loss.
    pub loss: Tensor,
    /// Mean probability of the positives.
    pub positive: Tensor,
    /// Mean length of the bank's columns before the step.
    pub bank_norm: Tensor,
    /// Norm of the encoder's whole gradient.
    pub gradient_norm: Tensor,
    /// Standard deviation of the first view's query over the batch, averaged over dimensions, times √C: about 1 where
    /// queries point everywhere, 0 where they have collapsed.
    pub spread: Tensor,
    /// The column that each key likes best [N], by view; empty where keys themselves are the positives.
    pub positives: Vec<Tensor>,
}

/// A part of a step, for whoever measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// f_q's forward passes.
    Forward,
    /// The moving average, and f_k's forward passes.
    Keys,
    /// Loss and bank.
    Bank,
    /// Back-propagation through f_q.
    Backward,
    /// LARS.
    Optimizer,
}

impl State {
    /// A state before its first step: f_k starts as f_q, nothing moves yet.
    pub fn start(query: Network, bank: Bank) -> Self {
        let query = query.trainable(true);
        let key = query.duplicate();
        let momentum = query.weights().parameters().map(|(_, p)| p.detach().zeros_like()).collect();
        State { query, key, bank, momentum }
    }

    /// One step on normalised views [N, 3, H, W], the first two of which are the large ones. `number` counts the steps
    /// from 0; a queue knows from it where its oldest key is.
    pub fn step(&mut self, views: &[Tensor], constants: &Constants, rates: Rates, number: u64) -> Result<Told> {
        self.timed_step(views, constants, rates, number, &mut |_| ())
    }

    /// The same, calling `lap` whenever a part is done (on a GPU: asked for).
    pub fn timed_step(
        &mut self,
        views: &[Tensor],
        constants: &Constants,
        rates: Rates,
        number: u64,
        lap: &mut dyn FnMut(Part),
    ) -> Result<Told> {
        ensure!(views.len() >= 2, "a step needs two views, it got {}", views.len());
        let (told, keys) = self.learn(views, targets(views.len()), constants, rates, lap)?;
        if constants.contrast.objective == Objective::Queue {
            let keys = Tensor::cat(&keys, 0);
            self.bank.enqueue((number as i64 * keys.size()[0]) % self.bank.size(), &keys);
        }
        Ok(told)
    }

    /// One step of the bank initialisation on two views: the first view's query against the second's key and the bank,
    /// at `constants.contrast.temperature`; then the keys of the second view fill the bank from column `start` on.
    pub fn warm(&mut self, views: &[Tensor], constants: &Constants, rates: Rates, start: i64) -> Result<Told> {
        ensure!(views.len() == 2, "the bank initialisation takes two views, it got {}", views.len());
        // The second view's query is compared with nothing, but batch norm sees it.
        let targets = vec![Target { query: 0, keys: vec![1], share: 1.0 }];
        // A key for positive and a bank that does not learn: the loss of a queue, filled below.
        let contrast = Contrast { objective: Objective::Queue, ..constants.contrast };
        let (told, keys) = self.learn(views, targets, &Constants { contrast, ..*constants }, rates, &mut |_| ())?;
        let free = (self.bank.size() - start).min(keys[1].size()[0]);
        self.bank.enqueue(start, &keys[1].narrow(0, 0, free));
        Ok(told)
    }

    /// Ends the bank initialisation: f_k's parameters become f_q's.
    pub fn settle(&mut self) {
        self.key.weights_mut().copy_parameters(self.query.weights());
    }

    /// Moves everything but a queue one step on. Gives what to tell, and the keys [N, C] of the first two views.
    fn learn(
        &mut self,
        views: &[Tensor],
        mut targets: Vec<Target>,
        constants: &Constants,
        rates: Rates,
        lap: &mut dyn FnMut(Part),
    ) -> Result<(Told, Vec<Tensor>)> {
        // f_k moves towards f_q as it is before this step's update.
        bridge::average(&parameters(&self.key), &parameters(&self.query), 1.0 - rates.key_momentum)?;
        lap(Part::Keys);
        let bank = self.bank.directions();
        targets.iter_mut().for_each(|target| target.share /= constants.accumulate as f64);
        let mut asked: Option<Asked> = None;
        for part in parts(views, constants.accumulate)? {
            let more = self.ask(&part, &targets, &bank.unit, constants, lap)?;
            asked = Some(match asked {
                None => more,
                Some(asked) => asked.and(more),
            });
        }
        let asked = asked.context("a batch has at least one part")?;
        let gradient_norm =
            bridge::lars(&parameters(&self.query), &asked.gradients, &self.momentum, rates.encoder, constants.lars)?;
        lap(Part::Optimizer);
        if let Some(push) = &asked.push {
            let temperature = constants.contrast.bank_temperature;
            self.bank.update(&bank, push, temperature, rates.bank, constants.bank_momentum);
        }
        lap(Part::Bank);
        let mean = |sum: Tensor| sum / constants.accumulate as f64;
        let told = Told {
            loss: asked.loss,
            positive: mean(asked.positive),
            bank_norm: bank.norm.mean(None),
            gradient_norm,
            spread: mean(asked.spread),
            positives: asked.positives,
        };
        Ok((told, asked.keys))
    }

    /// What these views of the batch, or of a part of it, ask of encoder and bank.
    fn ask(
        &self,
        views: &[Tensor],
        targets: &[Target],
        directions: &Tensor,
        constants: &Constants,
        lap: &mut dyn FnMut(Part),
    ) -> Result<Asked> {
        let pass = self.query.pass(constants.precision, true).keeping(constants.activations);
        let compared = |view| targets.iter().any(|target| target.query == view);
        let query = |(number, view)| if compared(number) { pass.embed(view) } else { no_grad(|| pass.embed(view)) };
        let queries: Vec<Tensor> = views.iter().enumerate().map(query).collect();
        lap(Part::Forward);
        let keys: Vec<Tensor> = no_grad(|| {
            let pass = self.key.pass(constants.precision, true);
            views[..2].iter().map(|view| pass.embed(view)).collect()
        });
        lap(Part::Keys);
        let positives: Vec<Tensor> = match constants.contrast.keys_are_positives() {
            true => vec![],
            false => keys.iter().map(|key| key.matmul(directions).argmax(1, false)).collect(),
        };
        let detached: Vec<Tensor> = queries.iter().map(Tensor::detach).collect();
        let compared = Compared { targets, queries: &detached, keys: &keys, positives: &positives, directions };
        let Answer { loss, positive, query_gradients, push } = constants.contrast.answer(&compared);
        lap(Part::Bank);
        let gradients = self.back_propagate(targets, &queries, &query_gradients)?;
        lap(Part::Backward);
        let dim = detached[0].size()[1] as f64;
        let spread = detached[0].std_dim([0i64].as_slice(), false, false).mean(None) * dim.sqrt();
        Ok(Asked { loss, positive, spread, positives, keys, gradients, push })
    }

    /// The gradient of every parameter, given those of the targets' queries.
    fn back_propagate(&self, targets: &[Target], queries: &[Tensor], gradients: &[Tensor]) -> Result<Vec<Tensor>> {
        // A scalar whose gradient with respect to every query is the one asked for.
        let products = targets.iter().zip(gradients).map(|(t, gradient)| (&queries[t.query] * gradient).sum(None));
        let scalar = Tensor::stack(&products.collect::<Vec<_>>(), 0).sum(None);
        Ok(Tensor::f_run_backward(&[scalar], &parameters(&self.query), false, false)?)
    }
}

/// What a part of a batch asks for; see [`Told`] and [`Answer`].
struct Asked {
    loss: Tensor,
    positive: Tensor,
    spread: Tensor,
    positives: Vec<Tensor>,
    keys: Vec<Tensor>,
    gradients: Vec<Tensor>,
    push: Option<Tensor>,
}

impl Asked {
    /// What this part and the next ask for together.
    fn and(self, next: Asked) -> Asked {
        let join = |a: Vec<Tensor>, b: Vec<Tensor>| a.iter().zip(&b).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect();
        let add = |(mut a, b): (Tensor, Tensor)| a.g_add_(&b);
        Asked {
            loss: self.loss + next.loss,
            positive: self.positive + next.positive,
            spread: self.spread + next.spread,
            positives: join(self.positives, next.positives),
            keys: join(self.keys, next.keys),
            gradients: self.gradients.into_iter().zip(next.gradients).map(add).collect(),
            push: self.push.zip(next.push).map(add),
        }
    }
}

/// Handles to a network's parameters.
fn parameters(network: &Network) -> Vec<Tensor> {
    network.weights().parameters().map(|(_, p)| p.shallow_clone()).collect()
}

/// The views cut into `count` parts of as many images.
fn parts(views: &[Tensor], count: i64) -> Result<Vec<Vec<Tensor>>> {
    let images = views[0].size()[0];
    ensure!(count > 0 && images % count == 0, "a batch of {images} images has no {count} equal parts");
    let size = images / count;
    Ok((0..count).map(|part| views.iter().map(|view| view.narrow(0, part * size, size)).collect()).collect())
}
