//! How the networks of a step are computed, whatever the method.

use super::collective;
use crate::{
    bridge,
    model::{Network, Shards},
};
use anyhow::Result;
use caco_kinds::{Activations, InitBank, Precision, Pretrain};
use tch::Tensor;

/// How a step is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    /// Floating-point precision of the encoders.
    pub precision: Precision,
    /// Which activations of the trained encoder are kept for the backward pass.
    pub activations: Activations,
    /// Number of equal parts in which a batch passes through the encoders, to save memory: gradients, bank and queue
    /// see the whole batch, but batch norm one part at a time, so its statistics cover fewer images and are updated
    /// more often.
    pub accumulate: i64,
    /// Number of shards into which each of those parts is cut, over all processes. Batch norm sees all of them; see
    /// [`crate::model::Shards`].
    pub shards: usize,
}

impl Compute {
    /// Cuts views of the images that this process has into its shards.
    pub fn cut(&self, views: &[Tensor]) -> Result<Shards> {
        Shards::cut(views, self.shards / collective::here().size())
    }
}

impl From<&Pretrain> for Compute {
    fn from(stage: &Pretrain) -> Self {
        let &Pretrain { precision, activations, accumulate, shards, .. } = stage;
        Compute { precision, activations, accumulate: accumulate.into(), shards: shards as usize }
    }
}

impl From<&InitBank> for Compute {
    fn from(stage: &InitBank) -> Self {
        let &InitBank { precision, activations, accumulate, shards, .. } = stage;
        Compute { precision, activations, accumulate: accumulate.into(), shards: shards as usize }
    }
}

/// Handles to a network's parameters.
pub fn parameters(network: &Network) -> Vec<Tensor> {
    network.weights().parameters().map(|(_, p)| p.shallow_clone()).collect()
}

/// The gradient of every parameter, given that of every tensor of `outputs`.
pub fn back_propagate(outputs: &Shards, gradients: &[Tensor], parameters: &[Tensor]) -> Result<Vec<Tensor>> {
    // A scalar whose gradient with respect to every output is the given one.
    let products = outputs.tensors().iter().zip(gradients).map(|(output, gradient)| (output * gradient).sum(None));
    let scalar = Tensor::stack(&products.collect::<Vec<_>>(), 0).sum(None);
    let gradients = Tensor::f_run_backward(&[scalar], parameters, false, false)?;
    collective::here().complete()?;
    Ok(gradients)
}

/// A loss as a function of tensors, its value, and its gradient with respect to each of them.
pub fn differentiate(of: &[Tensor], loss: impl FnOnce(&[Tensor]) -> Tensor) -> (Tensor, Vec<Tensor>) {
    let of: Vec<Tensor> = of.iter().map(|tensor| tensor.detach().set_requires_grad(true)).collect();
    let loss = tch::with_grad(|| loss(&of));
    let gradients = Tensor::run_backward(&[&loss], &of, false, false);
    (loss.detach(), gradients)
}

/// The product of `a` [N, C] and the transpose of `b` [M, C], which every process has whole, tracked by autograd. Portable
/// where results are.
pub fn product_with_transpose(a: &Tensor, b: &Tensor) -> Tensor {
    // Shapes fit, so what fails is memory: a panic, as in tch's operations.
    bridge::whole_linear(a, b).unwrap_or_else(|error| panic!("{error:#}"))
}
