//! What a method of training is to the loop: steps, and the tensors that they change.

use crate::model::{Bank, Network};
use anyhow::Result;
use tch::Tensor;

/// A method of self-supervised training, with its state.
pub trait Method {
    /// Takes a step on normalised views [N, 3, H, W], calling `lap` whenever a part is done (on a GPU: enqueued).
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput>;
    /// Every tensor that a step changes: what a checkpoint holds, and what a resumed training starts from.
    fn changed(&self) -> Vec<Changed>;
    /// The encoder, which is evaluated.
    fn encoder(&self) -> &Network;
    /// The bank, if there is one.
    fn bank(&self) -> Option<&Bank> {
        None
    }
    /// Called after the last step.
    fn finish(&mut self) {}
}

/// The position of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Number of steps before it, over all epochs.
    pub number: u64,
}

/// Called when a part of a step is done, for timing.
pub type Lap<'a> = &'a mut dyn FnMut(Part);

/// A part of a step, for timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Forward passes of the trained encoder.
    Forward,
    /// The moving average, and its forward passes.
    Keys,
    /// Loss and bank.
    Bank,
    /// Back-propagation.
    Backward,
    /// The optimizer.
    Optimizer,
}

/// The output of a step, as scalars on its device. Reading one waits for the device.
#[derive(Debug)]
pub struct StepOutput {
    /// The loss.
    pub loss: Tensor,
    /// Other metrics of the method, by name.
    pub metrics: Vec<(&'static str, Tensor)>,
    /// Norm of the full gradient.
    pub gradient_norm: Tensor,
    /// See [`spread`].
    pub spread: Tensor,
    /// The rates of the step, by name.
    pub rates: Vec<(&'static str, f64)>,
    /// The most similar column of each key [N], by view; empty if keys themselves are the positives.
    pub positives: Vec<Tensor>,
    /// The gradient of each trained parameter, as the optimizer leaves it: on a GPU LARS adds weight decay and scales it.
    pub gradients: Vec<(String, Tensor)>,
}

/// A tensor that a step changes.
#[derive(Debug)]
pub struct Changed {
    /// Its name in checkpoints.
    pub name: String,
    /// A handle to it.
    pub tensor: Tensor,
    /// Whether the update changes it, after the gradient is known, and not the forward passes.
    pub by_update: bool,
}

impl Changed {
    /// A tensor that the forward passes change.
    pub fn passed(name: impl Into<String>, tensor: &Tensor) -> Self {
        Changed { by_update: false, ..Self::updated(name, tensor) }
    }

    /// A tensor that the update changes.
    pub fn updated(name: impl Into<String>, tensor: &Tensor) -> Self {
        Changed { name: name.into(), tensor: tensor.shallow_clone(), by_update: true }
    }
}

/// The tensors of a network, under `prefix`. Forward passes change its running statistics; its parameters are changed by
/// the update or, if it is a moving average that is taken before, with the forward passes.
pub fn network(prefix: &str, network: &Network, by_update: bool) -> Vec<Changed> {
    let weights = network.weights();
    let changed = |(name, tensor, is_parameter): (&str, &Tensor, bool)| Changed {
        name: format!("{prefix}.{name}"),
        tensor: tensor.shallow_clone(),
        by_update: is_parameter && by_update,
    };
    weights.all().map(changed).collect()
}

/// The gradients of a network's parameters, under `prefix`.
pub fn gradients(prefix: &str, network: &Network, gradients: Vec<Tensor>) -> Vec<(String, Tensor)> {
    let names = network.weights().parameters().map(|(name, _)| format!("{prefix}.{name}"));
    names.zip(gradients).collect()
}

/// Standard deviation of embeddings [N, C] of unit length over the batch, averaged over dimensions, times √C: about 1 if
/// they point in all directions, 0 if they have collapsed.
pub fn spread(embeddings: &Tensor) -> Tensor {
    let embeddings = embeddings.detach();
    let dim = embeddings.size()[1] as f64;
    embeddings.std_dim([0i64].as_slice(), false, false).mean(None) * dim.sqrt()
}
