//! The contrastive loss of a step, and its gradients with respect to queries and bank. Does not use autograd: the
//! gradients are short, and written out they share one softmax over the bank.

use crate::{bridge, portable};
use caco_kinds::Objective;
use tch::{Kind, Tensor};

/// The keys with which the query of a view is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The view of the query.
    pub query: usize,
    /// The views whose keys determine its positives, one pair each.
    pub keys: Vec<usize>,
    /// Weight of each of its pairs in the loss.
    pub share: f64,
}

/// The pairs of a step on `views` views, of which the first two have keys. With two views: loss 1 + loss 2. With more:
/// the mean over the two pairs among the first two, plus the mean over all pairs of the others with those.
pub fn targets(views: usize) -> Vec<Target> {
    let large = if views == 2 { 1.0 } else { 0.5 };
    let mut targets =
        vec![Target { query: 0, keys: vec![1], share: large }, Target { query: 1, keys: vec![0], share: large }];
    let small = 0.5 / (views.max(3) - 2) as f64;
    targets.extend((2..views).map(|query| Target { query, keys: vec![0, 1], share: small }));
    targets
}

/// The parameters of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    /// How the bank is used.
    pub objective: Objective,
    /// τ of the loss.
    pub temperature: f64,
    /// τ_b of the bank's update.
    pub bank_temperature: f64,
}

/// A loss and its gradients. Metrics are scalars on the device.
#[derive(Debug)]
pub struct Answer {
    /// The loss.
    pub loss: Tensor,
    /// Probability of the positive under the softmax of the loss, averaged over all pairs by weight.
    pub positive: Tensor,
    /// Gradient of the loss with respect to each target's query [N, C].
    pub query_gradients: Vec<Tensor>,
    /// The push of the queries on the bank, see [`crate::model::Bank::update`]; `None` if the bank is not trained.
    pub push: Option<Tensor>,
}

/// The inputs of the loss.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// The pairs to compare.
    pub targets: &'a [Target],
    /// Unit-length queries [N, C], by view.
    pub queries: &'a [Tensor],
    /// Unit-length keys [N, C], by view.
    pub keys: &'a [Tensor],
    /// The most similar column [N] of each key, by view.
    pub positives: &'a [Tensor],
    /// The bank's directions D [C, K].
    pub directions: &'a Tensor,
}

/// The softmax of every target's query over the bank's columns, [R, K] with R = N × targets, and its pairs.
struct Softmax {
    p: Tensor,
    pairs: Vec<Pair>,
}

/// One query with one key. Its softmax over the columns of the bank is `Softmax::p`, times `negative` if present.
struct Pair {
    /// Number of its target.
    target: usize,
    /// The view of the key.
    key: usize,
    /// Log-probability of the positive [N, 1].
    log_chance: Tensor,
    /// If the positive is a key and not a column: the total probability of all columns [N, 1].
    negative: Option<Tensor>,
}

impl Contrast {
    /// Computes the loss and its gradients.
    pub fn answer(&self, compared: &Compared) -> Answer {
        let softmax = self.softmax(compared, self.temperature);
        let (mut loss, mut positive) = (Vec::new(), Vec::new());
        let whole: f64 = compared.targets.iter().map(|t| t.share * t.keys.len() as f64).sum();
        for pair in &softmax.pairs {
            let share = compared.targets[pair.target].share;
            loss.push(pair.log_chance.mean(None) * -share);
            positive.push(pair.log_chance.exp().mean(None) * (share / whole));
        }
        Answer {
            loss: Tensor::stack(&loss, 0).sum(None),
            positive: Tensor::stack(&positive, 0).sum(None),
            query_gradients: self.query_gradients(compared, &softmax),
            push: self.push(compared, softmax),
        }
    }

    /// Whether the positive of a query is a key, and not the column most similar to the key.
    pub fn keys_are_positives(&self) -> bool {
        matches!(self.objective, Objective::KeyPositive | Objective::Queue)
    }

    fn softmax(&self, compared: &Compared, temperature: f64) -> Softmax {
        let own: Vec<&Tensor> = compared.targets.iter().map(|t| &compared.queries[t.query]).collect();
        let logits = product(&(Tensor::cat(&own, 0) * (1.0 / temperature)), compared.directions);
        let mut log_p = logits.log_softmax(1, None::<Kind>);
        let mut pairs = Vec::new();
        for (number, target) in compared.targets.iter().enumerate() {
            for &key in &target.keys {
                let (log_chance, negative) = if self.keys_are_positives() {
                    let to_key = dot(own[number], &compared.keys[key]) * (1.0 / temperature);
                    // The log of the sum over all columns is what log-softmax subtracted, here computed from the first
                    // column.
                    let first = |of: &Tensor| compared.rows(of, number).narrow(1, 0, 1);
                    let to_columns = first(&logits) - first(&log_p);
                    let all = log_add(&to_key, &to_columns);
                    (to_key - &all, Some((to_columns - all).exp()))
                } else {
                    let column = compared.positives[key].unsqueeze(1);
                    (compared.rows(&log_p, number).gather(1, &column, false), None)
                };
                pairs.push(Pair { target: number, key, log_chance, negative });
            }
        }
        Softmax { p: log_p.exp_(), pairs }
    }

    /// Per pair (p·Dᵀ − D_j)/τN, or with a key k as positive (1 − p₀)(p·Dᵀ − k)/τN.
    fn query_gradients(&self, compared: &Compared, softmax: &Softmax) -> Vec<Tensor> {
        let expected = product(&softmax.p, &compared.directions.tr());
        let mut gradients: Vec<Option<Tensor>> = compared.targets.iter().map(|_| None).collect();
        for pair in &softmax.pairs {
            let expected = compared.rows(&expected, pair.target);
            let scale = compared.targets[pair.target].share / (self.temperature * compared.batch() as f64);
            let gradient = match &pair.negative {
                Some(negative) => (expected - &compared.keys[pair.key]) * (negative * scale),
                None => (expected - compared.directions.index_select(1, &compared.positives[pair.key]).tr()) * scale,
            };
            add(&mut gradients[pair.target], gradient);
        }
        gradients.into_iter().map(|g| g.expect("every target has a pair")).collect()
    }

    /// Σ over pairs of qᵀw/N. With a column j as positive, w = p except 1 − p_j at j: the positive descends the loss,
    /// all others ascend it. With a key as positive, w = p · (1 − p₀): all ascend it.
    fn push(&self, compared: &Compared, mut softmax: Softmax) -> Option<Tensor> {
        // The value added to p at j, given p_j.
        let at_positive = |chance: Tensor| match self.objective {
            Objective::CaCo => chance * -2.0 + 1.0,
            Objective::AdversarialOnly => -chance,
            _ => 1.0 - chance,
        };
        if matches!(self.objective, Objective::FixedBank | Objective::Queue) {
            return None;
        }
        if self.bank_temperature != self.temperature {
            softmax = self.softmax(compared, self.bank_temperature);
        }
        let mut w = softmax.p;
        if self.objective == Objective::CooperativeOnly {
            let _ = w.zero_();
        }
        let mut weights: Vec<Option<Tensor>> = compared.targets.iter().map(|_| None).collect();
        for pair in softmax.pairs {
            let target = &compared.targets[pair.target];
            let scale = target.share / compared.batch() as f64;
            match pair.negative {
                Some(negative) => add(&mut weights[pair.target], negative * scale),
                None => {
                    let pairs = target.keys.len() as f64;
                    let column = compared.positives[pair.key].unsqueeze(1);
                    let value = at_positive(pair.log_chance.exp()) * (1.0 / pairs);
                    let _ = compared.rows(&w, pair.target).scatter_add_(1, &column, &value);
                    add(&mut weights[pair.target], value.full_like(scale));
                }
            }
        }
        let weighted = compared
            .targets
            .iter()
            .zip(weights)
            .map(|(target, weight)| &compared.queries[target.query] * weight.expect("every target has a pair"));
        Some(product(&Tensor::cat(&weighted.collect::<Vec<_>>(), 0).tr(), &w))
    }
}

impl Compared<'_> {
    /// N.
    fn batch(&self) -> i64 {
        self.queries[0].size()[0]
    }

    /// The rows of target number `target` in a tensor of all targets' rows.
    fn rows(&self, of: &Tensor, target: usize) -> Tensor {
        of.narrow(0, target as i64 * self.batch(), self.batch())
    }
}

/// log(eᵃ + eᵇ), of columns [N, 1].
fn log_add(a: &Tensor, b: &Tensor) -> Tensor {
    if !portable::on() {
        return a.logaddexp(b);
    }
    // libtorch computes what does not fill a vector with the C library's functions, which differ between versions.
    let rows = a.size()[0];
    let filled = |x: &Tensor| x.constant_pad_nd([0, 0, 0, (-rows).rem_euclid(VECTOR)]);
    filled(a).logaddexp(&filled(b)).narrow(0, 0, rows)
}

/// Numbers that libtorch computes together, or a multiple.
const VECTOR: i64 = 16;

/// The product of two matrices.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Tensor {
    // Shapes fit, so what fails is memory: a panic, as in tch's operations.
    bridge::product(a, b).unwrap_or_else(|error| panic!("{error:#}"))
}

fn dot(a: &Tensor, b: &Tensor) -> Tensor {
    (a * b).sum_dim_intlist([1i64].as_slice(), true, None::<Kind>)
}

fn add(sum: &mut Option<Tensor>, term: Tensor) {
    *sum = Some(match sum.take() {
        Some(sum) => sum + term,
        None => term,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device,
        model::{Bank, unit},
    };

    fn random(rows: i64, columns: i64, seed: u64) -> Tensor {
        unit(&Bank::draw(rows, columns, seed, Kind::Double, device::for_tests(1).unwrap()).columns, 1)
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max()).unwrap()
    }

    /// In f64; `cross_entropy_for_logits` computes in f32.
    fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
        logits.log_softmax(1, None::<Kind>).nll_loss(labels)
    }

    /// Loss and w of one pair as in the paper, with full N × K matrices.
    fn pair(contrast: &Contrast, q: &Tensor, k: &Tensor, j: &Tensor, d: &Tensor) -> (Tensor, Tensor) {
        let n = q.size()[0];
        let s = q.matmul(d);
        let one = s.zeros_like().scatter_value(1, &j.unsqueeze(1), 1.0);
        if matches!(contrast.objective, Objective::KeyPositive | Objective::Queue) {
            let logits = Tensor::cat(&[dot(q, k), s.shallow_clone()], 1);
            let label = Tensor::zeros([n], (Kind::Int64, device::for_tests(1).unwrap()));
            let loss = cross_entropy(&(&logits / contrast.temperature), &label);
            return (loss, (logits / contrast.bank_temperature).softmax(1, None::<Kind>).narrow(1, 1, d.size()[1]));
        }
        let p = (&s / contrast.bank_temperature).softmax(1, None::<Kind>);
        let at_positive = match contrast.objective {
            Objective::AdversarialOnly => p.zeros_like(),
            _ => 1.0 - &p,
        };
        let elsewhere = if contrast.objective == Objective::CooperativeOnly { p.zeros_like() } else { p };
        let w: Tensor = &one * at_positive + (1.0 - &one) * elsewhere;
        (cross_entropy(&(s / contrast.temperature), j), w)
    }

    fn check(objective: Objective, temperatures: (f64, f64), views: usize) {
        let (n, c, k) = (5, 4, 7);
        let contrast = Contrast { objective, temperature: temperatures.0, bank_temperature: temperatures.1 };
        let directions = unit(&random(c, k, 1), 0);
        let queries: Vec<Tensor> = (0..views).map(|i| random(n, c, 10 + i as u64).set_requires_grad(true)).collect();
        let keys: Vec<Tensor> = (0..2).map(|i| random(n, c, 20 + i)).collect();
        let positives: Vec<Tensor> = keys.iter().map(|key| key.matmul(&directions).argmax(1, false)).collect();
        let targets = targets(views);
        let detached: Vec<Tensor> = queries.iter().map(Tensor::detach).collect();
        let answer = contrast.answer(&Compared {
            targets: &targets,
            queries: &detached,
            keys: &keys,
            positives: &positives,
            directions: &directions,
        });
        let mut loss = Tensor::from(0.0f64);
        let mut push = directions.zeros_like();
        for target in &targets {
            for &key in &target.keys {
                let q = &queries[target.query];
                let (one, w) = pair(&contrast, q, &keys[key], &positives[key], &directions);
                loss += one * target.share;
                push += q.detach().tr().matmul(&w.detach()) * (target.share / n as f64);
            }
        }
        let gradients = Tensor::run_backward(&[&loss], &queries, false, false);
        assert!(distance(&answer.loss, &loss.detach()) < 1e-12, "{objective:?} loss");
        for (target, gradient) in targets.iter().zip(answer.query_gradients) {
            assert!(distance(&gradient, &gradients[target.query]) < 1e-12, "{objective:?} gradient");
        }
        match answer.push {
            Some(ours) => assert!(distance(&ours, &push) < 1e-12, "{objective:?} push"),
            None => assert!(matches!(objective, Objective::FixedBank | Objective::Queue)),
        }
    }

    #[test]
    fn every_objective_matches_autograd_and_the_papers_formulas() {
        for objective in [
            Objective::CaCo,
            Objective::FixedBank,
            Objective::AdversarialOnly,
            Objective::CooperativeOnly,
            Objective::KeyPositive,
            Objective::Queue,
        ] {
            for temperatures in [(0.08, 0.08), (0.2, 0.05)] {
                check(objective, temperatures, 2);
                check(objective, temperatures, 5);
            }
        }
    }

    #[test]
    fn shares_are_means_over_large_and_small_pairs() {
        assert_eq!(targets(2).iter().map(|t| t.share).collect::<Vec<_>>(), [1.0, 1.0]);
        let eight = targets(8);
        assert_eq!(eight.len(), 8);
        assert_eq!((eight[0].share, eight[1].share, eight[7].share), (0.5, 0.5, 1.0 / 12.0));
        assert_eq!(eight[7].keys, [0, 1]);
    }
}
