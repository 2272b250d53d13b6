//! A batch on its way through a network: all its views side by side, each cut into shards.
//!
//! A batch is always cut into the same shards, however many threads or processes compute them. Every kernel sees one
//! shard of one view, and sums over shards are taken in a fixed tree, nearest neighbours first. So no bit depends on who
//! computes which shard.

use super::convolution::convolve;
use crate::bridge;
use anyhow::{Result, ensure};
use tch::Tensor;

/// For each view its shards, in order; all views have the same number.
#[derive(Debug)]
pub struct Shards {
    tensors: Vec<Tensor>,
    per_view: usize,
}

impl Shards {
    /// Cuts views along their first dimension, into equal shards.
    pub fn cut(views: &[Tensor], per_view: usize) -> Result<Self> {
        if per_view == 1 {
            return Ok(Self::of(views.iter().map(Tensor::shallow_clone).collect(), 1));
        }
        let mut tensors = Vec::with_capacity(views.len() * per_view);
        for view in views {
            let images = view.size()[0];
            let size = images / per_view as i64;
            ensure!(size * per_view as i64 == images, "{images} images cannot be cut into {per_view} equal shards");
            tensors.extend((0..per_view as i64).map(|shard| view.narrow(0, shard * size, size)));
        }
        Ok(Self::of(tensors, per_view))
    }

    /// One view in parts of at most `size` images.
    pub fn blocks(view: &Tensor, size: i64) -> Self {
        let tensors = view.split(size, 0);
        Shards { per_view: tensors.len(), tensors }
    }

    /// Views of `per_view` shards each.
    pub fn of(tensors: Vec<Tensor>, per_view: usize) -> Self {
        assert!(per_view > 0 && tensors.len().is_multiple_of(per_view), "whole views");
        Shards { tensors, per_view }
    }

    /// Shards per view.
    pub fn per_view(&self) -> usize {
        self.per_view
    }

    /// All tensors: the shards of the first view, then those of the next.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The same tensors, as a list.
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// As many other tensors, of the same views and shards.
    pub fn with(&self, tensors: Vec<Tensor>) -> Self {
        assert_eq!(tensors.len(), self.tensors.len(), "one tensor for each");
        Shards { tensors, per_view: self.per_view }
    }

    /// A second handle to the same tensors.
    pub fn share(&self) -> Self {
        self.map(Tensor::shallow_clone)
    }

    /// Applies `work` to every tensor.
    pub fn map(&self, work: impl Fn(&Tensor) -> Tensor) -> Self {
        self.with(self.tensors.iter().map(work).collect())
    }

    /// The views, each put together from its shards.
    pub fn join(&self) -> Vec<Tensor> {
        self.tensors.chunks(self.per_view).map(joined).collect()
    }

    /// The convolution with `weight` [O, C, k, k].
    pub(super) fn convolve(&self, weight: &Tensor, stride: i64, padding: i64) -> Self {
        self.with(convolve(&self.tensors, self.per_view, weight, stride, padding))
    }

    /// The product with the transpose of `weight` [O, C].
    pub fn linear(&self, weight: &Tensor) -> Self {
        self.with(bridge::linear(&self.tensors, self.per_view, weight).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// The maximum of every window of 3 × 3, at stride 2.
    pub(super) fn pool(&self) -> Self {
        self.with(bridge::pool(&self.tensors).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// Batch norm of every view, then the addition of `add` and a ReLU, or just a ReLU.
    pub(super) fn norm(self, norm: bridge::Norm, add: Option<&Shards>, relu: bool, train: bool) -> Self {
        let per_view = self.per_view;
        let adds = add.map(Shards::tensors);
        let tensors = bridge::norm(self.tensors, per_view, norm, adds, relu, train);
        // Shapes fit by declaration, so what fails is memory: a panic, as in tch's operations.
        Shards { tensors: tensors.unwrap_or_else(|error| panic!("{error:#}")), per_view }
    }
}

/// A view put together from its shards.
pub fn joined(shards: &[Tensor]) -> Tensor {
    match shards {
        [whole] => whole.shallow_clone(),
        _ => Tensor::cat(shards, 0),
    }
}
