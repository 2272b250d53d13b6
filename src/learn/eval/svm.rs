//! Linear support vector machine for one class against the rest: Σ cᵢ max(0, 1 − yᵢ w·xᵢ)² + λ/2 ‖w‖², like LIBLINEAR's
//! L2-loss primal with C = 1/λ (Fan et al. 2008). The bias is the weight of a feature that is always 1, so it is
//! penalised too.

use super::lbfgs::{Objective, Stop, minimise};
use anyhow::{Result, ensure};
use tch::{Kind, Tensor, no_grad};

/// Training features shared by several machines.
#[derive(Debug)]
pub struct Machines {
    /// f64 [n, d + 1], the last one 1.
    features: Tensor,
    /// Eigenvalues and eigenvectors of featuresᵀ · features.
    values: Tensor,
    vectors: Tensor,
}

/// Maximum number of steps of a machine.
const STEPS: u64 = 20_000;

impl Machines {
    /// Features [n, d] of any float type.
    pub fn new(features: &Tensor) -> Result<Self> {
        let (n, _) = features.size2()?;
        let features = features.to_kind(Kind::Double);
        ensure!(features.isfinite().all().int64_value(&[]) == 1, "some features are not finite");
        let features = Tensor::cat(&[&features, &features.new_ones([n, 1], (Kind::Double, features.device()))], 1);
        let (values, vectors) = features.tr().matmul(&features).linalg_eigh("L");
        Ok(Machines { features, values: values.clamp_min(0.0), vectors })
    }

    /// One machine for each strength λ > 0, in this order, each starting from the previous result: weights [d] and
    /// bias. `positive` says whether each image shows the class; the loss of such an image is weighted by `weight`.
    pub fn fit(&self, positive: &[bool], weight: f64, strengths: &[f64]) -> Result<Vec<(Tensor, f64)>> {
        let (n, columns) = self.features.size2()?;
        ensure!(n == positive.len() as i64, "{n} images and {} labels", positive.len());
        let _guard = tch::no_grad_guard();
        let signs: Vec<f64> = positive.iter().map(|&there| if there { 1.0 } else { -1.0 }).collect();
        let weights: Vec<f64> = positive.iter().map(|&there| if there { weight } else { 1.0 }).collect();
        let mut hinge = Hinge {
            machines: self,
            signs: Tensor::from_slice(&signs),
            weights: Tensor::from_slice(&weights),
            strength: 1.0,
            active: 1.0,
        };
        let mut at = Tensor::zeros([columns], (Kind::Double, self.features.device()));
        let stop = Stop { gradient: 1e-9 * n as f64, decrease: 64.0 * f64::EPSILON * n as f64, steps: STEPS };
        let mut fits = Vec::with_capacity(strengths.len());
        for &strength in strengths {
            hinge.strength = strength;
            let minimum = minimise(&mut hinge, &at, stop);
            let message = "a support vector machine has not converged; are the features of a reasonable size?";
            ensure!(minimum.converged && minimum.value.is_finite(), "strength {strength}: {message}");
            at = minimum.at;
            fits.push((at.narrow(0, 0, columns - 1).copy(), at.double_value(&[columns - 1])));
        }
        Ok(fits)
    }
}

struct Hinge<'a> {
    machines: &'a Machines,
    /// 1 or −1 [n], and the weight of each image's loss [n].
    signs: Tensor,
    weights: Tensor,
    strength: f64,
    /// Mean over the images of the weight of the loss where it is not 0: scales the Gram matrix of the features.
    active: f64,
}

impl Objective for Hinge<'_> {
    fn evaluate(&mut self, at: &Tensor) -> (f64, Tensor) {
        let features = &self.machines.features;
        let reached = &self.signs * features.mv(at);
        let missing = (reached.neg() + 1.0).clamp_min(0.0);
        let weighted = &self.weights * &missing;
        self.active = (missing.gt(0.0) * &self.weights).mean(Kind::Double).double_value(&[]);
        let value = weighted.dot(&missing).double_value(&[]) + self.strength / 2.0 * at.dot(at).double_value(&[]);
        (value, at * self.strength - features.tr().mv(&(weighted * &self.signs)) * 2.0)
    }

    /// Approximated as if the images with non-zero loss were a random sample.
    fn precondition(&self, vector: &Tensor) -> Tensor {
        no_grad(|| {
            let Machines { values, vectors, .. } = self.machines;
            let curvature = values * (2.0 * self.active) + self.strength;
            vectors.mv(&(vectors.tr().mv(vector) / curvature))
        })
    }

    fn stepped(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_measure::rng::Rng;

    #[test]
    fn the_gradient_vanishes_at_every_minimum() {
        let mut rng = Rng::new(6, "test", 0, 0);
        let values: Vec<f64> = (0..80 * 4).map(|_| rng.normal()).collect();
        let features = Tensor::from_slice(&values).view([80, 4]);
        let positive: Vec<bool> = (0..80).map(|i| values[4 * i] + 0.5 * rng.normal() > 0.3).collect();
        let strengths = [10.0, 1.0, 0.01];
        let fits = Machines::new(&features).unwrap().fit(&positive, 2.0, &strengths).unwrap();
        for ((weights, bias), strength) in fits.iter().zip(strengths) {
            let leaf = Tensor::cat(&[weights, &Tensor::from_slice(&[*bias])], 0).set_requires_grad(true);
            let scores = features.matmul(&leaf.narrow(0, 0, 4)) + leaf.get(4);
            let signs: Vec<f64> = positive.iter().map(|&there| if there { 1.0 } else { -1.0 }).collect();
            let counts: Vec<f64> = positive.iter().map(|&there| if there { 2.0 } else { 1.0 }).collect();
            let missing = ((scores * Tensor::from_slice(&signs)).neg() + 1.0).relu();
            let loss = (missing.square() * Tensor::from_slice(&counts)).sum(Kind::Double)
                + leaf.square().sum(Kind::Double) * (strength / 2.0);
            let gradient = &Tensor::run_backward(&[&loss], &[&leaf], false, false)[0];
            let largest = gradient.abs().max().double_value(&[]);
            assert!(largest < 1e-5, "strength {strength}: {largest}");
        }
    }
}
