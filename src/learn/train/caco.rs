//! One step of CaCo (Wang et al., TPAMI 2023), and one of its bank initialisation.

use super::contrast::{Answer, Compared, Contrast, Target, product, targets};
use crate::{
    bridge::{self, Lars},
    model::{Bank, Network, Shards, shards::joined},
};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Activations, Objective, Precision};
use tch::{Tensor, no_grad};

/// The state changed by training.
#[derive(Debug)]
pub struct State {
    /// f_q, trained by LARS.
    pub query: Network,
    /// f_k, its moving average. It runs in training mode and keeps its own batch-norm statistics.
    pub key: Network,
    /// The bank.
    pub bank: Bank,
    /// LARS momentum, one tensor per parameter of f_q.
    pub momentum: Vec<Tensor>,
}

/// Hyper-parameters that are the same for all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// The loss.
    pub contrast: Contrast,
    /// Momentum of the bank's update.
    pub bank_momentum: f64,
    /// The encoder's optimizer.
    pub lars: Lars,
    /// Floating-point precision of the encoders.
    pub precision: Precision,
    /// Which activations of f_q are kept for the backward pass.
    pub activations: Activations,
    /// Number of equal parts in which a batch passes through the encoders, to save memory: gradients, bank and queue
    /// see the whole batch, but batch norm one part at a time, so its statistics cover fewer images and are updated
    /// more often.
    pub accumulate: i64,
    /// Number of shards into which each of those parts is cut. Batch norm sees all of them; see [`Shards`].
    pub shards: usize,
}

/// Rates that change per epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate of the encoder.
    pub encoder: f64,
    /// Learning rate of the bank, η_b.
    pub bank: f64,
    /// Momentum of the key encoder, m.
    pub key_momentum: f64,
}

/// The output of a step, as scalars on its device. Reading one waits for the device.
#[derive(Debug)]
pub struct StepOutput {
    /// The loss.
    pub loss: Tensor,
    /// Mean probability of the positives.
    pub positive: Tensor,
    /// Mean length of the bank's columns before the step.
    pub bank_norm: Tensor,
    /// Norm of the full gradient of the encoder.
    pub gradient_norm: Tensor,
    /// Standard deviation of the first view's query over the batch, averaged over dimensions, times √C: about 1 if
    /// queries point in all directions, 0 if they have collapsed.
    pub spread: Tensor,
    /// The most similar column of each key [N], by view; empty if keys themselves are the positives.
    pub positives: Vec<Tensor>,
    /// The gradient of each of the encoder's parameters, as LARS leaves it: on a GPU it adds weight decay and scales it.
    pub gradients: Vec<Tensor>,
}

/// A part of a step, for timing.
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
    /// The initial state: f_k is a copy of f_q, and momentum is zero.
    pub fn start(query: Network, bank: Bank) -> Self {
        let query = query.trainable(true);
        let key = query.duplicate();
        let momentum = query.weights().parameters().map(|(_, p)| p.detach().zeros_like()).collect();
        State { query, key, bank, momentum }
    }

    /// One step on normalised views [N, 3, H, W], the first two of which are the large ones. `number` counts the steps
    /// from 0; it locates the oldest key of a queue.
    pub fn step(&mut self, views: &[Tensor], constants: &Constants, rates: Rates, number: u64) -> Result<StepOutput> {
        self.timed_step(views, constants, rates, number, &mut |_| ())
    }

    /// The same, calling `lap` whenever a part is done (on a GPU: enqueued).
    pub fn timed_step(
        &mut self,
        views: &[Tensor],
        constants: &Constants,
        rates: Rates,
        number: u64,
        lap: &mut dyn FnMut(Part),
    ) -> Result<StepOutput> {
        ensure!(views.len() >= 2, "a step needs two views, it got {}", views.len());
        let (output, keys) = self.learn(views, targets(views.len()), constants, rates, lap)?;
        if constants.contrast.objective == Objective::Queue {
            let keys = Tensor::cat(&keys, 0);
            self.bank.enqueue((number as i64 * keys.size()[0]) % self.bank.size(), &keys);
        }
        Ok(output)
    }

    /// One step of the bank initialisation on two views: the first view's query against the second's key and the bank,
    /// at `constants.contrast.temperature`; then the keys of the second view fill the bank starting at column `start`.
    pub fn init_step(
        &mut self,
        views: &[Tensor],
        constants: &Constants,
        rates: Rates,
        start: i64,
    ) -> Result<StepOutput> {
        ensure!(views.len() == 2, "the bank initialisation takes two views, it got {}", views.len());
        // The second view's query is compared with nothing, but batch norm sees it.
        let targets = vec![Target { query: 0, keys: vec![1], share: 1.0 }];
        // The key is the positive and the bank is not updated: the loss of a queue, which is filled below.
        let contrast = Contrast { objective: Objective::Queue, ..constants.contrast };
        let (output, keys) = self.learn(views, targets, &Constants { contrast, ..*constants }, rates, &mut |_| ())?;
        let free = (self.bank.size() - start).min(keys[1].size()[0]);
        self.bank.enqueue(start, &keys[1].narrow(0, 0, free));
        Ok(output)
    }

    /// Finishes the bank initialisation by setting the parameters of f_k to those of f_q.
    pub fn finish_init(&mut self) {
        self.key.weights_mut().copy_parameters(self.query.weights());
    }

    /// Updates everything except a queue. Returns the output of the step, and the keys [N, C] of the first two views.
    fn learn(
        &mut self,
        views: &[Tensor],
        mut targets: Vec<Target>,
        constants: &Constants,
        rates: Rates,
        lap: &mut dyn FnMut(Part),
    ) -> Result<(StepOutput, Vec<Tensor>)> {
        // f_k moves towards f_q as it is before this step's update.
        bridge::average(&parameters(&self.key), &parameters(&self.query), 1.0 - rates.key_momentum)?;
        lap(Part::Keys);
        let bank = self.bank.directions();
        let pieces = constants.accumulate as f64 * constants.shards as f64;
        targets.iter_mut().for_each(|target| target.share /= pieces);
        let mut sum: Option<Gradients> = None;
        for part in parts(views, constants.accumulate)? {
            let part = self.gradients(&part, &targets, &bank.unit, constants, lap)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => sum.merge(part),
            });
        }
        let sum = sum.context("a batch has at least one part")?;
        let gradient_norm =
            bridge::lars(&parameters(&self.query), &sum.gradients, &self.momentum, rates.encoder, constants.lars)?;
        lap(Part::Optimizer);
        if let Some(push) = &sum.push {
            let temperature = constants.contrast.bank_temperature;
            self.bank.update(&bank, push, temperature, rates.bank, constants.bank_momentum);
        }
        lap(Part::Bank);
        let output = StepOutput {
            loss: sum.loss,
            positive: sum.positive / pieces,
            bank_norm: bank.norm.mean(None),
            gradient_norm,
            spread: sum.spread / constants.accumulate as f64,
            positives: sum.positives,
            gradients: sum.gradients,
        };
        Ok((output, sum.keys))
    }

    /// The gradients of encoder and bank for these views of the batch, or of a part of it.
    fn gradients(
        &self,
        views: &[Tensor],
        targets: &[Target],
        directions: &Tensor,
        constants: &Constants,
        lap: &mut dyn FnMut(Part),
    ) -> Result<Gradients> {
        let cut = |views: &[Tensor]| Shards::cut(views, constants.shards);
        // The views of the targets' queries come first. The others are compared with nothing, but batch norm sees them.
        let (compared, others) = views.split_at(targets.len());
        let pass = self.query.pass(constants.precision, true).keeping(constants.activations);
        let queries = pass.embed(&cut(compared)?);
        if !others.is_empty() {
            no_grad(|| -> Result<_> { Ok(pass.embed(&cut(others)?)) })?;
        }
        lap(Part::Forward);
        let keys = no_grad(|| -> Result<_> { Ok(self.key.pass(constants.precision, true).embed(&cut(&views[..2])?)) })?;
        lap(Part::Keys);
        let answers = compare(targets, &queries, &keys, directions, &constants.contrast);
        lap(Part::Bank);
        let gradients = self.back_propagate(&queries, &answers)?;
        lap(Part::Backward);
        let first = queries.join().remove(0).detach();
        let dim = first.size()[1] as f64;
        let spread = first.std_dim([0i64].as_slice(), false, false).mean(None) * dim.sqrt();
        Ok(Gradients::of(answers, keys.join(), spread, gradients))
    }

    /// The gradient of every parameter, given those of all queries.
    fn back_propagate(&self, queries: &Shards, answers: &[(Answer, Vec<Tensor>)]) -> Result<Vec<Tensor>> {
        // A scalar whose gradient with respect to every query is the given one.
        let shards = answers.len();
        let products = queries.tensors().iter().enumerate().map(|(number, query)| {
            let (answer, _) = &answers[number % shards];
            (query * &answer.query_gradients[number / shards]).sum(None)
        });
        let scalar = Tensor::stack(&products.collect::<Vec<_>>(), 0).sum(None);
        Ok(Tensor::f_run_backward(&[scalar], &parameters(&self.query), false, false)?)
    }
}

/// The answer for every shard, and the positives of its keys by view.
fn compare(
    targets: &[Target],
    queries: &Shards,
    keys: &Shards,
    directions: &Tensor,
    contrast: &Contrast,
) -> Vec<(Answer, Vec<Tensor>)> {
    let of = |all: &Shards, shard| -> Vec<Tensor> {
        all.tensors().iter().skip(shard).step_by(all.per_view()).map(Tensor::detach).collect()
    };
    let shard = |shard| (of(queries, shard), of(keys, shard), directions.shallow_clone());
    let answer = |(queries, keys, directions): (Vec<Tensor>, Vec<Tensor>, Tensor)| {
        let positives: Vec<Tensor> = match contrast.keys_are_positives() {
            true => vec![],
            false => keys.iter().map(|key| product(key, &directions).argmax(1, false)).collect(),
        };
        let compared =
            Compared { targets, queries: &queries, keys: &keys, positives: &positives, directions: &directions };
        (contrast.answer(&compared), positives)
    };
    bridge::each((0..queries.per_view()).map(shard).collect(), answer)
}

/// The gradients of encoder and bank over a part of a batch, with its metrics; see [`StepOutput`] and [`Answer`].
struct Gradients {
    loss: Tensor,
    positive: Tensor,
    spread: Tensor,
    positives: Vec<Tensor>,
    keys: Vec<Tensor>,
    gradients: Vec<Tensor>,
    push: Option<Tensor>,
}

impl Gradients {
    /// Puts together what all shards of a part have.
    fn of(answers: Vec<(Answer, Vec<Tensor>)>, keys: Vec<Tensor>, spread: Tensor, gradients: Vec<Tensor>) -> Self {
        let (answers, positives): (Vec<Answer>, Vec<Vec<Tensor>>) = answers.into_iter().unzip();
        let views = positives.first().map_or(0, Vec::len);
        let positives = (0..views)
            .map(|view| joined(&positives.iter().map(|shard| shard[view].shallow_clone()).collect::<Vec<_>>()))
            .collect();
        let (mut loss, mut positive, mut push) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            loss.push(answer.loss);
            positive.push(answer.positive);
            push.extend(answer.push);
        }
        Gradients {
            loss: in_a_tree(loss).expect("a batch has a shard"),
            positive: in_a_tree(positive).expect("a batch has a shard"),
            spread,
            positives,
            keys,
            gradients,
            push: in_a_tree(push),
        }
    }

    /// Combines this part and the next.
    fn merge(self, next: Gradients) -> Gradients {
        let join = |a: Vec<Tensor>, b: Vec<Tensor>| a.iter().zip(&b).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect();
        let add = |(mut a, b): (Tensor, Tensor)| a.g_add_(&b);
        Gradients {
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

/// The sum of the shards' terms, nearest neighbours first. `None` if there are none.
fn in_a_tree(mut terms: Vec<Tensor>) -> Option<Tensor> {
    let mut step = 1;
    while step < terms.len() {
        for i in (0..terms.len() - step).step_by(2 * step) {
            let next = terms[i + step].shallow_clone();
            let _ = terms[i].g_add_(&next);
        }
        step *= 2;
    }
    terms.into_iter().next()
}

/// Handles to a network's parameters.
fn parameters(network: &Network) -> Vec<Tensor> {
    network.weights().parameters().map(|(_, p)| p.shallow_clone()).collect()
}

/// The views split into `count` parts with the same number of images.
fn parts(views: &[Tensor], count: i64) -> Result<Vec<Vec<Tensor>>> {
    let images = views[0].size()[0];
    ensure!(count > 0 && images % count == 0, "a batch of {images} images cannot be split into {count} equal parts");
    let size = images / count;
    Ok((0..count).map(|part| views.iter().map(|view| view.narrow(0, part * size, size)).collect()).collect())
}
