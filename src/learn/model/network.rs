//! A network of backbone and head, with its tensors.

use super::{
    head::{Head, Sizes},
    resnet::{Layout, ResNet},
    shards::Shards,
    weights::{Declaration, Span, Weights},
};
use crate::bridge;
use anyhow::Result;
use caco_kinds::{Activations, Model, Precision};
use std::{collections::BTreeMap, sync::Arc};
use tch::{Device, Kind, Tensor};

/// The structure of a network, shared by all networks of one shape.
#[derive(Debug)]
struct Structure {
    backbone: ResNet,
    head: Option<Head>,
}

/// A network: images → embeddings.
#[derive(Debug)]
pub struct Network {
    structure: Arc<Structure>,
    weights: Weights,
}

/// Sizes of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The backbone.
    pub backbone: Layout,
    /// The head; `None` if there is only a backbone.
    pub head: Option<Sizes>,
}

impl From<&Model> for Shape {
    fn from(model: &Model) -> Self {
        let sizes = Sizes { hidden: model.hidden.into(), dim: model.dim.into() };
        Shape { backbone: model.into(), head: model.has_head().then_some(sizes) }
    }
}

impl Shape {
    fn declare(&self) -> (Structure, Declaration) {
        let mut declaration = Declaration::default();
        let backbone = ResNet::declare(&self.backbone, &mut declaration);
        let head = self.head.map(|sizes| Head::declare(backbone.features(), sizes, &mut declaration));
        (Structure { backbone, head }, declaration)
    }

    /// A network with initial values drawn from `seed`.
    pub fn draw(&self, seed: u64, kind: Kind, device: Device) -> Network {
        let (structure, declaration) = self.declare();
        Network { structure: Arc::new(structure), weights: declaration.draw(seed, kind, device) }
    }

    /// A network with these tensors; missing, unexpected or misshaped tensors are an error that names them.
    pub fn load(&self, named: BTreeMap<String, Tensor>, kind: Kind, device: Device) -> Result<Network> {
        let (structure, declaration) = self.declare();
        Ok(Network { structure: Arc::new(structure), weights: declaration.load(named, kind, device)? })
    }
}

impl Network {
    /// Its tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its tensors, mutably.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Sets whether autograd tracks the parameters.
    pub fn trainable(self, yes: bool) -> Self {
        Network { weights: self.weights.trainable(yes), ..self }
    }

    /// A copy that shares no tensors and is not tracked by autograd.
    pub fn duplicate(&self) -> Self {
        Network { structure: self.structure.clone(), weights: self.weights.duplicate() }
    }

    /// A second handle to the same tensors.
    pub fn share(&self) -> Self {
        Network { structure: self.structure.clone(), weights: self.weights.share() }
    }

    /// Number of features of the backbone.
    pub fn features(&self) -> i64 {
        self.structure.backbone.features()
    }

    /// Prepares forward passes at `precision`: weights are cast once for all of them.
    pub fn pass(&self, precision: Precision, train: bool) -> Pass<'_> {
        let weights = match precision {
            Precision::F32 => self.weights.share(),
            Precision::Bf16 => self.weights.lowered(Kind::BFloat16),
        };
        let lowered = precision == Precision::Bf16;
        Pass { structure: &self.structure, weights, train, lowered, activations: Activations::Keep }
    }
}

/// Forward passes with one set of weights. Precision F32 keeps the network's type, including f64.
pub struct Pass<'a> {
    structure: &'a Arc<Structure>,
    weights: Weights,
    train: bool,
    lowered: bool,
    activations: Activations,
}

impl Pass<'_> {
    /// Sets which activations of the backbone are kept for the backward pass. Values and gradients do not depend on it.
    pub fn keeping(self, activations: Activations) -> Self {
        Pass { activations, ..self }
    }

    /// Images [N, 3, H, W] → pooled features [N, d], in the precision of the pass.
    pub fn features(&self, images: &Shards) -> Shards {
        let images = if self.lowered { images.map(|x| x.to_kind(Kind::BFloat16)) } else { images.share() };
        let backbone = &self.structure.backbone;
        let parts = backbone.parts().iter().enumerate();
        ResNet::pool(&parts.fold(images, |x, (number, span)| match self.activations {
            Activations::Keep => backbone.part(number, &self.weights, x, self.train),
            Activations::Recompute => self.recompute(number, span, &x),
        }))
    }

    /// Runs part `number` of the backbone, keeping only its input.
    fn recompute(&self, number: usize, span: &Span, x: &Shards) -> Shards {
        let (count, per_view) = (x.tensors().len(), x.per_view());
        let mut inputs = x.share().into_tensors();
        inputs.extend(self.weights.parameters_of(span));
        let (structure, weights, span, train) =
            (self.structure.clone(), self.weights.share(), span.clone(), self.train);
        let part = move |inputs: &[Tensor], again| {
            let (xs, parameters) = inputs.split_at(count);
            // The running statistics must not be updated again when it is rerun.
            let weights = weights.with(&span, parameters, again);
            let xs = Shards::of(xs.iter().map(Tensor::shallow_clone).collect(), per_view);
            structure.backbone.part(number, &weights, xs, train).into_tensors()
        };
        x.with(bridge::recompute(&inputs, count, part).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// Images [N, 3, H, W] → embeddings [N, C] of unit length (f32 after a pass in bf16). The network must have a head.
    pub fn embed(&self, images: &Shards) -> Shards {
        self.project(images).map(|raw| unit(raw, 1))
    }

    /// The same embeddings, not normalised.
    pub fn project(&self, images: &Shards) -> Shards {
        let head = self.structure.head.as_ref().expect("only networks with a head are trained");
        let raw = head.forward(&self.weights, &self.features(images), self.train);
        raw.map(|raw| if self.lowered { raw.to_kind(Kind::Float) } else { raw.shallow_clone() })
    }
}

/// `x` divided by its length along `dim`, or by 1e-12 if that is larger.
pub fn unit(x: &Tensor, dim: i64) -> Tensor {
    x / x.norm_scalaropt_dim(2, [dim].as_slice(), true).clamp_min(1e-12)
}
