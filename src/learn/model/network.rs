//! Backbone and head together, with their tensors.

use super::{
    head::{Head, Sizes},
    resnet::{Layout, ResNet},
    weights::{Declaration, Span, Weights},
};
use crate::bridge;
use anyhow::Result;
use caco_kinds::{Activations, Model, Precision};
use std::{collections::BTreeMap, sync::Arc};
use tch::{Device, Kind, Tensor};

/// What a network is made of, shared by all networks of one shape.
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
    /// The head; none where only the backbone is known.
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

    /// A network with starting values drawn from `seed`.
    pub fn draw(&self, seed: u64, kind: Kind, device: Device) -> Network {
        let (structure, declaration) = self.declare();
        Network { structure: Arc::new(structure), weights: declaration.draw(seed, kind, device) }
    }

    /// A network with these tensors; any that is missing, unexpected or misshaped is an error that names it.
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

    /// Its tensors, to change their values.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// The network with parameters that autograd sees, or does not.
    pub fn trainable(self, yes: bool) -> Self {
        Network { weights: self.weights.trainable(yes), ..self }
    }

    /// A network of the same values that shares no tensor, hidden from autograd.
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

    /// Prepares some forward passes at `precision`: weights are cast once for all of them.
    pub fn pass(&self, precision: Precision, train: bool) -> Pass<'_> {
        let weights = match precision {
            Precision::F32 => self.weights.share(),
            Precision::Bf16 => self.weights.lowered(Kind::BFloat16),
        };
        let lowered = precision == Precision::Bf16;
        Pass { structure: &self.structure, weights, train, lowered, activations: Activations::Keep }
    }
}

/// Forward passes with one set of weights. Precision F32 leaves the network's own type alone, f64 included.
pub struct Pass<'a> {
    structure: &'a Arc<Structure>,
    weights: Weights,
    train: bool,
    lowered: bool,
    activations: Activations,
}

impl Pass<'_> {
    /// The pass, with these activations of the backbone kept for the gradient. Values and gradients are the same.
    pub fn keeping(self, activations: Activations) -> Self {
        Pass { activations, ..self }
    }

    /// Images [N, 3, H, W] → pooled features [N, d], in the type of the pass.
    pub fn features(&self, images: &Tensor) -> Tensor {
        let images = if self.lowered { images.to_kind(Kind::BFloat16) } else { images.shallow_clone() };
        let backbone = &self.structure.backbone;
        let parts = backbone.parts().iter().enumerate();
        ResNet::pool(&parts.fold(images, |x, (number, span)| match self.activations {
            Activations::Keep => backbone.part(number, &self.weights, x, self.train),
            Activations::Recompute => self.recompute(number, span, x),
        }))
    }

    /// Part `number` of the backbone, of which only the input is kept.
    fn recompute(&self, number: usize, span: &Span, x: Tensor) -> Tensor {
        let mut inputs = vec![x];
        inputs.extend(self.weights.parameters_of(span));
        let (structure, weights, span, train) =
            (self.structure.clone(), self.weights.share(), span.clone(), self.train);
        let part = move |inputs: &[Tensor], again| {
            // The running statistics have moved when it runs again.
            let weights = weights.with(&span, &inputs[1..], again);
            structure.backbone.part(number, &weights, inputs[0].shallow_clone(), train)
        };
        bridge::recompute(&inputs, part).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Images [N, 3, H, W] → embeddings [N, C] of unit length (f32 after a pass in bf16). The network must have a head.
    pub fn embed(&self, images: &Tensor) -> Tensor {
        let head = self.structure.head.as_ref().expect("only networks with a head are trained");
        let raw = head.forward(&self.weights, &self.features(images), self.train);
        unit(&if self.lowered { raw.to_kind(Kind::Float) } else { raw }, 1)
    }
}

/// `x` divided by its length along `dim`, or by 1e-12 where that is more.
pub fn unit(x: &Tensor, dim: i64) -> Tensor {
    x / x.norm_scalaropt_dim(2, [dim].as_slice(), true).clamp_min(1e-12)
}
