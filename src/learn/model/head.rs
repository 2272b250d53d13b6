//! The projection head: Linear, BN and ReLU, twice, then Linear. No biases, and no final batch norm.

use super::{
    resnet::Norm,
    shards::Shards,
    weights::{Declaration, Slot, Start, Weights},
};

/// A head without its tensors. Its layers are named like positions 0, 1, 3, 4, 6 of a `Sequential` called `fc`.
#[derive(Debug)]
pub struct Head {
    hidden: [(Slot, Norm); 2],
    last: Slot,
}

/// Sizes of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Hidden width.
    pub hidden: i64,
    /// Dimension C of the embedding.
    pub dim: i64,
}

impl Head {
    /// Declares a head from `features` through two hidden layers to the embedding.
    pub fn declare(features: i64, Sizes { hidden, dim }: Sizes, into: &mut Declaration) -> Self {
        let linear = |into: &mut Declaration, place: u32, from, to| {
            into.parameter(format!("fc.{place}.weight"), &[to, from], Start::LinearUniform)
        };
        let first = (linear(into, 0, features, hidden), Norm::declare(into, "fc.1", hidden));
        let second = (linear(into, 3, hidden, hidden), Norm::declare(into, "fc.4", hidden));
        Head { hidden: [first, second], last: linear(into, 6, hidden, dim) }
    }

    /// Features [N, d] → embeddings [N, C], not normalised.
    pub fn forward(&self, weights: &Weights, features: &Shards, train: bool) -> Shards {
        let mut x = features.share();
        for (weight, norm) in &self.hidden {
            x = norm.forward(weights, x.linear(weights.get(*weight)), None, true, train);
        }
        x.linear(weights.get(self.last))
    }
}
