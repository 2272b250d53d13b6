//! BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733): what a predictor makes of one view is to point where a moving
//! average of the encoder maps the other view. No images are compared with one another.

use crate::{
    bridge,
    model::{
        Network, Shards,
        resnet::Norm,
        unit,
        weights::{Declaration, Slot, Start, Weights},
    },
    schedule,
    train::{
        compute::{Compute, parameters},
        method::{self, At, Changed, Lap, Method, Part, StepOutput},
        recipe::Recipe,
        trained::{Differentiated, Trained, whole},
    },
};
use anyhow::Result;
use caco_kinds::{self as kinds, Pretrain};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, no_grad};

/// BYOL.
#[derive(Debug)]
pub struct BYOL {
    state: Trained,
    predictor: Predictor,
    /// f_k, the moving average of the encoder. It runs in training mode and keeps its own batch-norm statistics.
    key: Network,
    key_momentum: f64,
}

/// The predictor: Linear, BN and ReLU, then Linear, without biases.
#[derive(Debug)]
pub struct Predictor {
    layers: Layers,
    weights: Weights,
}

#[derive(Debug)]
struct Layers {
    first: Slot,
    norm: Norm,
    last: Slot,
}

impl Layers {
    fn declare(dim: i64, hidden: i64) -> (Self, Declaration) {
        let mut into = Declaration::default();
        let first = into.parameter("predictor.0.weight".into(), &[hidden, dim], Start::LinearUniform);
        let norm = Norm::declare(&mut into, "predictor.1", hidden);
        let last = into.parameter("predictor.3.weight".into(), &[dim, hidden], Start::LinearUniform);
        (Layers { first, norm, last }, into)
    }
}

impl Predictor {
    /// A drawn predictor.
    pub fn draw(stage: &Pretrain, hidden: u32, device: Device) -> Self {
        let (layers, declaration) = Layers::declare(stage.model.dim.into(), hidden.into());
        Self::of(layers, declaration.draw_for("predictor", stage.seed, Kind::Float, device))
    }

    /// A predictor of these tensors.
    pub fn load(named: BTreeMap<String, Tensor>, dim: i64, hidden: i64, device: Device) -> Result<Self> {
        let (layers, declaration) = Layers::declare(dim, hidden);
        Ok(Self::of(layers, declaration.load(named, Kind::Double, device)?))
    }

    fn of(layers: Layers, weights: Weights) -> Self {
        Predictor { layers, weights: weights.trainable(true) }
    }

    fn forward(&self, x: &Shards) -> Shards {
        let Layers { first, norm, last } = &self.layers;
        let x = x.linear(self.weights.get(*first));
        norm.forward(&self.weights, x, None, true, true).linear(self.weights.get(*last))
    }
}

impl BYOL {
    /// Starts with this encoder, whose moving average is a copy, and this predictor.
    pub fn new(query: Network, predictor: Predictor, parameters: &kinds::BYOL, recipe: Recipe) -> Self {
        let key = query.duplicate();
        let named = predictor.weights.parameters().map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()));
        let state = Trained::start(query, named.collect(), recipe);
        BYOL { state, predictor, key, key_momentum: parameters.key_momentum }
    }
}

impl Method for BYOL {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let Recipe { compute, epochs, .. } = self.state.recipe;
        let Compute { precision, activations, .. } = compute;
        let views = compute.cut(views)?;
        let projected = self.state.query.pass(precision, true).keeping(activations).project(&views);
        let predicted = self.predictor.forward(&projected).map(|raw| unit(raw, 1));
        lap(Part::Forward);
        let targets = whole(&no_grad(|| self.key.pass(precision, true).embed(&views)))?;
        lap(Part::Keys);
        let predictions = whole(&predicted)?;
        let differentiated = distance(&predictions, &targets);
        lap(Part::Bank);
        let mut output = self.state.learn(&predicted, &predictions[0], differentiated, at.epoch, lap)?;
        // The moving average sees the new weights.
        let key_momentum = schedule::key_momentum(self.key_momentum, epochs, at.epoch);
        bridge::average(&parameters(&self.key), &parameters(&self.state.query), 1.0 - key_momentum)?;
        lap(Part::Keys);
        output.rates.push(("key_momentum", key_momentum));
        Ok(output)
    }

    fn changed(&self) -> Vec<Changed> {
        let mut changed = self.state.changed();
        changed.extend(method::network("key", &self.key, true));
        let statistics = self.predictor.weights.all().filter(|(_, _, is_parameter)| !is_parameter);
        changed.extend(statistics.map(|(name, tensor, _)| Changed::passed(name, tensor)));
        changed
    }

    fn encoder(&self) -> &Network {
        &self.state.query
    }
}

/// ‖p − z‖² of each view's prediction p and the other view's target z, both of unit length: 2 − 2 p·z. Averaged over the
/// batch, summed over the two views.
fn distance(predicted: &[Tensor], targets: &[Tensor]) -> Differentiated {
    let pairs = [(&predicted[0], &targets[1]), (&predicted[1], &targets[0])];
    let images = targets[0].size()[0] as f64;
    let similar = pairs.map(|(p, z)| (p.detach() * z).sum(None) / images);
    let loss = Tensor::stack(&similar, 0).sum(None) * -2.0 + 4.0;
    let embeddings = pairs.map(|(_, z)| z * (-2.0 / images)).into();
    Differentiated { loss, metrics: vec![], embeddings, more: vec![], is_frozen: false }
}
