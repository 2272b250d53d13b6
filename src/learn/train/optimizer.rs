//! The optimizer of the trained weights.

use super::method::Changed;
use crate::bridge::{self, Lars};
use anyhow::Result;
use tch::{Tensor, no_grad};

/// The rule by which weights move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Layer-wise adaptive rates (You et al. 2017).
    Lars(Lars),
    /// Stochastic gradient descent: g ← g + `weight_decay`·w, v ← `momentum`·v + g, w ← w − rate·v. As PyTorch's.
    Sgd {
        /// Momentum.
        momentum: f64,
        /// Weight decay.
        weight_decay: f64,
    },
}

/// The momentum of every trained parameter.
#[derive(Debug)]
pub struct Optimizer {
    momentum: Vec<Tensor>,
}

impl Optimizer {
    /// An optimizer of these parameters that has taken no step.
    pub fn at_rest(parameters: &[Tensor]) -> Self {
        Optimizer { momentum: parameters.iter().map(|p| p.detach().zeros_like()).collect() }
    }

    /// Moves `parameters`: those given at the start, or the first of them. Returns the norm of the full gradient. LARS may change `gradients`.
    pub fn update(&self, parameters: &[Tensor], gradients: &[Tensor], rate: f64, rule: Rule) -> Result<Tensor> {
        match rule {
            Rule::Lars(lars) => bridge::lars(parameters, gradients, &self.momentum[..parameters.len()], rate, lars),
            Rule::Sgd { momentum, weight_decay } => {
                let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
                let steps = parameters.iter().zip(gradients).zip(&self.momentum);
                no_grad(|| steps.for_each(|((p, g), v)| descend(p, g, v, [rate, momentum, weight_decay])));
                Ok(Tensor::stack(&norms, 0).norm())
            }
        }
    }

    /// The momenta, under the names of their parameters.
    pub fn changed<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Changed> {
        names.zip(&self.momentum).map(|(name, v)| Changed::updated(format!("momentum.{name}"), v)).collect()
    }
}

fn descend(p: &Tensor, g: &Tensor, v: &Tensor, [rate, momentum, weight_decay]: [f64; 3]) {
    let (mut p, mut v) = (p.shallow_clone(), v.shallow_clone());
    let decayed = g + &p * weight_decay;
    let _ = v.g_mul_scalar_(momentum);
    let _ = v.g_add_(&decayed);
    let _ = p.g_sub_(&(v * rate));
}
