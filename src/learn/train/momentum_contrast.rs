//! Contrast with a bank: the query of one view is compared with the key of another and with a bank of columns (He et al.
//! 2020). Shared by CaCo, AdCo and MoCo v2, which differ in the pairs, in the positive, and in how the bank changes.

use super::{
    checkpoint::Saved,
    collective,
    compute::{Compute, back_propagate, parameters},
    contrast::{Answer, Compared, Contrast, Target, product, targets},
    method::{self, Changed, Lap, Part, StepOutput},
    optimizer::{Optimizer, Rule},
};
use crate::{
    bridge,
    model::{Bank, Network, Shape, Shards, shards::joined},
};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Model, Pretrain};
use tch::{Device, Kind, Tensor, no_grad};

/// The state changed by training.
#[derive(Debug)]
pub struct MomentumContrast {
    /// f_q, which is trained.
    pub query: Network,
    /// f_k, its moving average. It runs in training mode and keeps its own batch-norm statistics.
    pub key: Network,
    /// The bank.
    pub bank: Bank,
    /// The optimizer of f_q.
    pub optimizer: Optimizer,
}

/// Hyper-parameters that are the same for all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// The loss.
    pub contrast: Contrast,
    /// Momentum of the bank's update.
    pub bank_momentum: f64,
    /// The encoder's optimizer.
    pub rule: Rule,
    /// How it is computed.
    pub compute: Compute,
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

/// Which views of a step are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairing {
    /// The views that pass through f_q and are compared.
    pub queries: Vec<usize>,
    /// The views that pass through f_q only for the statistics of batch norm.
    pub seen: Vec<usize>,
    /// The views that pass through f_k.
    pub keys: Vec<usize>,
    /// The pairs. Numbers are positions in `queries` and `keys`.
    pub targets: Vec<Target>,
}

/// What a step did.
pub struct Learnt {
    /// Its output. The rates are left out.
    pub output: StepOutput,
    /// The keys [N, C], in the order of [`Pairing::keys`].
    pub keys: Vec<Tensor>,
}

impl Pairing {
    /// Queries of the first view with keys of the second.
    pub fn one_way() -> Self {
        let targets = vec![Target { query: 0, keys: vec![0], share: 1.0 }];
        Pairing { queries: vec![0], seen: vec![], keys: vec![1], targets }
    }

    /// Queries of all views with keys of the other one of the first two, or with both.
    pub fn all(views: usize) -> Self {
        Pairing { queries: (0..views).collect(), seen: vec![], keys: vec![0, 1], targets: targets(views) }
    }
}

impl MomentumContrast {
    /// The initial state: f_k is a copy of f_q, and momentum is zero.
    pub fn start(query: Network, bank: Bank) -> Self {
        let query = query.trainable(true);
        let key = query.duplicate();
        let optimizer = Optimizer::at_rest(&parameters(&query));
        MomentumContrast { query, key, bank, optimizer }
    }

    /// A drawn encoder with a bank of `size` drawn columns.
    pub fn draw(stage: &Pretrain, size: u32, device: Device) -> Self {
        let Pretrain { model, seed, .. } = stage;
        let query = Shape::from(model).draw(*seed, Kind::Float, device);
        Self::start(query, Bank::draw(model.dim.into(), size.into(), *seed, Kind::Float, device))
    }

    /// The state at the end of a bank initialisation.
    pub fn initialised(model: &Model, init: Saved, device: Device) -> Result<Self> {
        let tensors = &init.tensors.tensors;
        let query = tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("query.")?.to_string(), tensor.shallow_clone())));
        let query = Shape::from(model).load(query.collect(), Kind::Float, device)?;
        let columns = tensors.get("bank.columns").context("the bank initialisation has no 'bank.columns'")?;
        let state = Self::start(query, Bank::at_rest(columns.copy().to_device(device)));
        init.restore(state.changed())?;
        Ok(state)
    }

    /// All tensors that a step changes.
    pub fn changed(&self) -> Vec<Changed> {
        let query = self.query.weights();
        let mut changed = method::network("query", &self.query, true);
        changed.extend(method::network("key", &self.key, false));
        changed.extend(self.optimizer.changed(query.parameters().map(|(name, _)| name)));
        changed.push(Changed::updated("bank.columns", &self.bank.columns));
        changed.push(Changed::updated("bank.velocity", &self.bank.velocity));
        changed
    }

    /// Updates everything except a queue.
    pub fn learn(
        &mut self,
        views: &[Tensor],
        mut pairing: Pairing,
        constants: &Constants,
        rates: Rates,
        lap: Lap,
    ) -> Result<Learnt> {
        // f_k moves towards f_q as it is before this step's update.
        bridge::average(&parameters(&self.key), &parameters(&self.query), 1.0 - rates.key_momentum)?;
        lap(Part::Keys);
        let bank = self.bank.directions();
        let Compute { accumulate, shards, .. } = constants.compute;
        let pieces = accumulate as f64 * shards as f64;
        pairing.targets.iter_mut().for_each(|target| target.share /= pieces);
        let mut sum: Option<Gradients> = None;
        for part in parts(views, accumulate)? {
            let part = self.gradients(&part, &pairing, &bank.unit, constants, lap)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => sum.merge(part),
            });
        }
        let sum = sum.context("a batch has at least one part")?;
        let parameters = parameters(&self.query);
        let gradient_norm = self.optimizer.update(&parameters, &sum.gradients, rates.encoder, constants.rule)?;
        lap(Part::Optimizer);
        if let Some(push) = &sum.push {
            let temperature = constants.contrast.bank_temperature;
            self.bank.update(&bank, push, temperature, rates.bank, constants.bank_momentum);
        }
        lap(Part::Bank);
        let output = StepOutput {
            loss: sum.loss,
            metrics: vec![("positive", sum.positive / pieces), ("bank_norm", bank.norm.mean(None))],
            gradient_norm,
            spread: sum.spread / accumulate as f64,
            rates: vec![],
            positives: sum.positives,
            gradients: method::gradients("query", &self.query, sum.gradients),
        };
        Ok(Learnt { output, keys: sum.keys })
    }

    /// The gradients of encoder and bank for these views of the batch, or of a part of it.
    fn gradients(
        &self,
        views: &[Tensor],
        pairing: &Pairing,
        directions: &Tensor,
        constants: &Constants,
        lap: Lap,
    ) -> Result<Gradients> {
        let Compute { precision, activations, .. } = constants.compute;
        let cut = |numbers: &[usize]| {
            let of = |number: &usize| views[*number].shallow_clone();
            constants.compute.cut(&numbers.iter().map(of).collect::<Vec<_>>())
        };
        let pass = self.query.pass(precision, true).keeping(activations);
        let queries = pass.embed(&cut(&pairing.queries)?);
        if !pairing.seen.is_empty() {
            no_grad(|| -> Result<_> { Ok(pass.embed(&cut(&pairing.seen)?)) })?;
        }
        lap(Part::Forward);
        let keys = no_grad(|| -> Result<_> { Ok(self.key.pass(precision, true).embed(&cut(&pairing.keys)?)) })?;
        lap(Part::Keys);
        let answers = compare(&pairing.targets, &queries, &keys, directions, &constants.contrast);
        lap(Part::Bank);
        let shards = queries.per_view();
        let of_query = |number: usize| answers[number % shards].0.query_gradients[number / shards].shallow_clone();
        let of_queries: Vec<Tensor> = (0..queries.tensors().len()).map(of_query).collect();
        let gradients = back_propagate(&queries, &of_queries, &parameters(&self.query))?;
        lap(Part::Backward);
        Gradients::of(answers, &queries, &keys, gradients)
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
    fn of(
        answers: Vec<(Answer, Vec<Tensor>)>,
        queries: &Shards,
        keys: &Shards,
        gradients: Vec<Tensor>,
    ) -> Result<Self> {
        let (answers, positives): (Vec<Answer>, Vec<Vec<Tensor>>) = answers.into_iter().unzip();
        let views = positives.first().map_or(0, Vec::len);
        let positives = (0..views)
            .map(|view| joined(&positives.iter().map(|shard| shard[view].shallow_clone()).collect::<Vec<_>>()));
        let own = [queries.join().remove(0).detach()].into_iter().chain(keys.join()).chain(positives).collect();
        let mut whole = collective::here().gather(own)?;
        let positives = whole.split_off(whole.len() - views);
        let keys = whole.split_off(1);
        let spread = method::spread(&whole[0]);
        let (mut loss, mut positive, mut push) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            loss.push(answer.loss);
            positive.push(answer.positive);
            push.extend(answer.push);
        }
        let mut quantities = vec![loss, positive];
        quantities.extend((!push.is_empty()).then_some(push));
        let mut sums = collective::here().sum(quantities)?.into_iter();
        let mut next = || sums.next().expect("a sum for each");
        let (loss, positive) = (next(), next());
        Ok(Gradients { loss, positive, spread, positives, keys, gradients, push: sums.next() })
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

/// The views split into `count` parts with the same number of images.
fn parts(views: &[Tensor], count: i64) -> Result<Vec<Vec<Tensor>>> {
    let images = views[0].size()[0];
    ensure!(count > 0 && images % count == 0, "a batch of {images} images cannot be split into {count} equal parts");
    let size = images / count;
    Ok((0..count).map(|part| views.iter().map(|view| view.narrow(0, part * size, size)).collect()).collect())
}
