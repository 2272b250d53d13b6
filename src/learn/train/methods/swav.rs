//! SwAV (Caron et al., NeurIPS 2020, arXiv 2006.09882), without its queue of embeddings: the first two views are divided
//! among prototypes, evenly over the batch, and every other view predicts the division.

use crate::{
    model::{Network, unit},
    train::{
        compute::{differentiate, product_with_transpose},
        method::{At, Changed, Lap, Method, StepOutput},
        recipe::Recipe,
        trained::{Differentiated, Trained},
    },
};
use anyhow::Result;
use caco_kinds::{self as kinds, Pretrain};
use caco_measure::rng::Rng;
use tch::{Device, Kind, Tensor, no_grad};

/// SwAV.
#[derive(Debug)]
pub struct SwAV {
    state: Trained,
    parameters: kinds::SwAV,
}

/// Drawn prototypes [P, C], as PyTorch draws the weights of a linear layer.
pub fn draw(stage: &Pretrain, count: u32, device: Device) -> Tensor {
    let (count, dim) = (i64::from(count), i64::from(stage.model.dim));
    let bound = 1.0 / (dim as f64).sqrt();
    let mut rng = Rng::new(stage.seed, "prototypes", 0, 0);
    let values: Vec<f64> = (0..count * dim).map(|_| rng.range(-bound, bound)).collect();
    Tensor::from_slice(&values).view([count, dim]).to_kind(Kind::Float).to_device(device)
}

impl SwAV {
    /// Starts with this encoder and these prototypes.
    pub fn new(query: Network, prototypes: Tensor, parameters: &kinds::SwAV, recipe: Recipe) -> Self {
        let more = vec![("prototypes.weight".into(), prototypes)];
        SwAV { state: Trained::start(query, more, recipe), parameters: parameters.clone() }
    }
}

impl Method for SwAV {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let parameters = &self.parameters;
        let mut prototypes = self.state.more[0].1.shallow_clone();
        no_grad(|| prototypes.copy_(&unit(&prototypes, 1)));
        let is_frozen = at.epoch < parameters.freeze.into();
        self.state.step(views, at.epoch, lap, |embeddings| {
            let mut of: Vec<Tensor> = embeddings.iter().map(Tensor::shallow_clone).collect();
            of.push(prototypes);
            let (loss, mut embeddings) = differentiate(&of, |of| swapped_prediction(of, parameters));
            let more = embeddings.pop().into_iter().collect();
            Differentiated { loss, metrics: vec![], embeddings, more, is_frozen }
        })
    }

    fn changed(&self) -> Vec<Changed> {
        self.state.changed()
    }

    fn encoder(&self) -> &Network {
        &self.state.query
    }
}

/// The cross entropy of how each of the first two views is divided and what every other view predicts, averaged over
/// these pairs. `of` holds the embeddings [N, C] of all views, then the prototypes [P, C].
fn swapped_prediction(of: &[Tensor], parameters: &kinds::SwAV) -> Tensor {
    let (prototypes, views) = of.split_last().expect("the prototypes");
    let scores: Vec<Tensor> = views.iter().map(|z| product_with_transpose(z, prototypes)).collect();
    let log_p = |view: usize| (&scores[view] / parameters.temperature).log_softmax(1, None::<Kind>);
    let log_p: Vec<Tensor> = (0..views.len()).map(log_p).collect();
    let mut terms = Vec::new();
    for (divided, scores) in scores.iter().enumerate().take(2) {
        let codes = no_grad(|| codes(scores, parameters.epsilon, parameters.iterations));
        let others = (0..views.len()).filter(|view| *view != divided);
        terms.extend(
            others.map(|view| -(&codes * &log_p[view]).sum_dim_intlist([1i64].as_slice(), false, None).mean(None)),
        );
    }
    let pairs = terms.len() as f64;
    Tensor::stack(&terms, 0).sum(None) / pairs
}

/// The division of a batch among prototypes that fits its scores [N, P] and uses all prototypes alike: Sinkhorn and Knopp's
/// iteration, as published. Rows sum to 1.
fn codes(scores: &Tensor, epsilon: f64, iterations: u32) -> Tensor {
    // The largest score is subtracted so that nothing overflows. It cancels in the first division.
    let mut q = ((scores - scores.max()) / epsilon).exp().tr();
    q /= q.sum(None);
    let (prototypes, images) = (q.size()[0] as f64, q.size()[1] as f64);
    // With a small ε, all of a prototype's entries can be too small to be more than zero.
    let sum =
        |q: &Tensor, dim: i64| q.sum_dim_intlist([dim].as_slice(), true, None).clamp_min(f64::from(f32::MIN_POSITIVE));
    for _ in 0..iterations {
        q = &q / sum(&q, 1) / prototypes;
        q = &q / sum(&q, 0) / images;
    }
    (q * images).tr()
}
