//! ℓ2-regularised multinomial logistic regression: Σ cross entropy + λ/2 ‖weights‖², bias free, to convergence.
//!
//! Two things make it fast. Features are centred: with a free bias this does not change the minimum, and it removes the
//! direction that costs most steps. And L-BFGS starts from an estimate of the inverse Hessian: the Hessian is Σᵢ (diag
//! pᵢ − pᵢpᵢᵀ) ⊗ xᵢxᵢᵀ, approximated as if the two factors were independent (a Kronecker product, as in Martens and
//! Grosse 2015), the second weighted by the uncertainty of the classifier about the image.

use super::lbfgs::{Minimum, Objective, Stop, minimise};
use anyhow::{Result, ensure};
use tch::{Kind, Tensor, no_grad};

/// A linear classifier.
#[derive(Debug)]
pub struct Classifier {
    /// Weights [classes, d], f64.
    pub weight: Tensor,
    /// Bias [classes], f64.
    pub bias: Tensor,
}

impl Classifier {
    /// Features [n, d] → scores [n, classes], f64.
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.to_kind(Kind::Double).matmul(&self.weight.tr()) + &self.bias
    }
}

/// A converged regression.
#[derive(Debug)]
pub struct Fit {
    /// The classifier.
    pub classifier: Classifier,
    /// Σ cross entropy + λ/2 ‖weights‖².
    pub objective: f64,
    /// L-BFGS steps.
    pub steps: u64,
    /// Passes over the features.
    pub evaluations: u64,
}

/// Maximum number of steps of a regression.
const STEPS: u64 = 20_000;

/// A regression on fixed images; each fit starts from the results of the previous ones.
#[derive(Debug)]
pub struct Regression {
    problem: Problem,
    mean: Tensor,
    /// The last two minima and their strengths, the most recent last.
    minima: Vec<(f64, Tensor)>,
}

impl Regression {
    /// Features [n, d] of any float type and labels [n] (i64, 0 to `classes` − 1) on one device.
    pub fn new(features: &Tensor, labels: &Tensor, classes: i64) -> Result<Self> {
        let (n, _) = features.size2()?;
        ensure!(n > 0 && labels.size() == [n], "{n} images, and labels of shape {:?}", labels.size());
        ensure!(classes >= 2, "{classes} class(es); a classifier needs two");
        let (least, most) = (labels.min().int64_value(&[]), labels.max().int64_value(&[]));
        ensure!(least >= 0 && most < classes, "labels range from {least} to {most}, but there are {classes} classes");
        let mut centred = features.to_dtype(Kind::Double, false, true);
        let mean = centred.mean_dim(0, false, None);
        ensure!(mean.isfinite().all().int64_value(&[]) == 1, "some features are not finite");
        centred -= &mean;
        Ok(Regression { problem: Problem::new(centred, labels.shallow_clone(), classes), mean, minima: Vec::new() })
    }

    /// Minimises for one `strength` λ > 0, until the largest absolute entry of the gradient, per image, is at most
    /// `tolerance`, or a step gains less than f64 can represent. An error if it does not converge.
    pub fn fit(&mut self, strength: f64, tolerance: f64) -> Result<Fit> {
        let _guard = tch::no_grad_guard();
        let start = self.start(strength);
        let problem = &mut self.problem;
        problem.restart(strength);
        let n = problem.images as f64;
        let stop = Stop { gradient: tolerance * n, decrease: 64.0 * f64::EPSILON * n, steps: STEPS };
        let Minimum { at, value, steps, evaluations, converged } = minimise(problem, &start, stop);
        ensure!(
            converged && value.is_finite(),
            "logistic regression at strength {strength} has not converged after {steps} steps (objective {value}); are \
             the features of a reasonable size?"
        );
        let (weight, centred_bias) = problem.split(&at);
        // w·(x − mean) + b = w·x + (b − w·mean)
        let bias = &centred_bias - weight.matmul(&self.mean);
        let classifier = Classifier { weight: weight.copy(), bias };
        if self.minima.len() == 2 {
            drop(self.minima.remove(0));
        }
        self.minima.push((strength, at));
        Ok(Fit { classifier, objective: value, steps, evaluations })
    }

    /// The starting point: on the line through the last two minima over the logarithm of the strength, which halves the
    /// steps of a path; initially zero.
    fn start(&self, strength: f64) -> Tensor {
        match self.minima.as_slice() {
            [] => self.problem.zero(),
            [(before, first), (last, second)] if before != last => {
                // No further than the previous step: a path may end in a jump.
                let ahead = ((strength / last).ln() / (last / before).ln()).clamp(0.0, 1.0);
                second + (second - first) * ahead
            }
            [.., (_, last)] => last.shallow_clone(),
        }
    }
}

/// Bytes of features multiplied at a time: read once from memory, then from the cache.
const BLOCK: i64 = 1 << 22;

/// The function to minimise, of weights and bias laid out as [classes, d + 1], the bias last.
#[derive(Debug)]
struct Problem {
    features: Tensor,
    labels: Tensor,
    /// Images per block.
    block: i64,
    images: i64,
    classes: i64,
    strength: f64,
    /// Probabilities [n, classes] at the point last evaluated.
    probabilities: Tensor,
    curvature: Curvature,
    /// Steps since the curvature was computed, and after how many it is recomputed.
    age: u64,
    renewal: u64,
    /// The cost of a renewal in steps, at least five.
    price: u64,
}

impl Problem {
    fn new(features: Tensor, labels: Tensor, classes: i64) -> Self {
        let (images, d) = (features.size()[0], features.size()[1]);
        // In units of one evaluation: a Gram matrix and two eigendecompositions against two products.
        let rows = Curvature::rows(images, d) as f64;
        let (d, k, n) = (d as f64, classes as f64, images as f64);
        let cost = (rows * d * d / 2.0 + 10.0 * d.powi(3) + 10.0 * k.powi(3)) / (2.0 * n * d * k.max(16.0));
        let uniform = Tensor::full([images, classes], 1.0 / classes as f64, (Kind::Double, features.device()));
        let curvature = Curvature::at(&features, &uniform);
        let labels = labels.unsqueeze(1);
        let price = (cost.ceil() as u64).max(5);
        let (probabilities, age, renewal) = (uniform, 0, price);
        let on_cpu = features.device() == tch::Device::Cpu;
        let block = if on_cpu { images.min((BLOCK / (8 * features.size()[1].max(1))).max(64)) } else { images };
        Problem {
            features,
            labels,
            block,
            images,
            classes,
            strength: 1.0,
            probabilities,
            curvature,
            age,
            renewal,
            price,
        }
    }

    /// All weights and biases 0.
    fn zero(&self) -> Tensor {
        let d = self.features.size()[1];
        Tensor::zeros([self.classes * (d + 1)], (Kind::Double, self.features.device()))
    }

    /// Prepares for another strength.
    fn restart(&mut self, strength: f64) {
        self.strength = strength;
        self.renewal = self.price;
    }

    /// Weights [classes, d] and bias [classes] of a point.
    fn split(&self, at: &Tensor) -> (Tensor, Tensor) {
        let at = at.view([self.classes, -1]);
        let d = at.size()[1] - 1;
        (at.narrow(1, 0, d), at.select(1, d))
    }
}

impl Objective for Problem {
    fn evaluate(&mut self, at: &Tensor) -> (f64, Tensor) {
        let (weight, bias) = self.split(at);
        let columns = weight.tr();
        let mut gradient = &weight * self.strength;
        let mut bias_gradient = bias.zeros_like();
        let mut value = weight.square().sum(Kind::Double) * (self.strength / 2.0);
        for start in (0..self.images).step_by(self.block as usize) {
            let count = self.block.min(self.images - start);
            let [features, labels, mut probabilities] =
                [&self.features, &self.labels, &self.probabilities].map(|whole| whole.narrow(0, start, count));
            let logarithms = bias.addmm(&features, &columns).log_softmax(1, Kind::Double);
            value -= logarithms.gather(1, &labels, false).sum(Kind::Double);
            probabilities.copy_(&logarithms.exp());
            let right = labels.full_like(-1.0).to_kind(Kind::Double);
            let errors = probabilities.scatter_add(1, &labels, &right);
            let _ = gradient.addmm_(&errors.tr(), &features);
            bias_gradient += errors.sum_dim_intlist(0, false, Kind::Double);
        }
        (value.double_value(&[]), Tensor::cat(&[gradient, bias_gradient.unsqueeze(1)], 1).view(-1))
    }

    fn precondition(&self, vector: &Tensor) -> Tensor {
        let (weight, bias) = self.split(vector);
        self.curvature.solve(&weight, &bias, self.strength)
    }

    fn stepped(&mut self) {
        self.age += 1;
        if self.age >= self.renewal {
            self.curvature = Curvature::at(&self.features, &self.probabilities);
            self.age = 0;
            // Closer to the minimum the curvature changes less.
            self.renewal *= 2;
        }
    }
}

/// The estimate A ⊗ G + λ of the Hessian, as eigenvalues and eigenvectors: A over classes, G over features.
#[derive(Debug)]
struct Curvature {
    class_values: Tensor,
    class_vectors: Tensor,
    feature_values: Tensor,
    feature_vectors: Tensor,
    /// Weighted mean of the features, where weights and bias decouple.
    centre: Tensor,
    /// Sum of the weights over all images.
    mass: f64,
}

impl Curvature {
    /// Images used for the estimate: a few times the number of directions are enough to resolve them.
    fn rows(images: i64, d: i64) -> i64 {
        images.min(16 * d)
    }

    /// Estimates it from features [n, d] and probabilities [n, classes].
    fn at(features: &Tensor, probabilities: &Tensor) -> Self {
        no_grad(|| {
            let p = probabilities;
            let decided: Tensor = p.square().sum_dim_intlist(1, false, Kind::Double);
            let undecided: Tensor = 1.0 - decided;
            let weights = undecided.clamp_min(1e-300);
            let mass = weights.sum(Kind::Double).double_value(&[]);
            let centre = weights.unsqueeze(0).matmul(features).view(-1) / mass;
            let gram = Self::gram(features, &centre, &weights, mass);
            let classes = (Tensor::diag(&p.sum_dim_intlist(0, false, Kind::Double), 0) - p.tr().matmul(p)) / mass;
            let (class_values, class_vectors) = classes.linalg_eigh("L");
            let (feature_values, feature_vectors) = gram.linalg_eigh("L");
            let class_values = class_values.clamp_min(0.0);
            let feature_values = feature_values.clamp_min(0.0);
            Curvature { class_values, class_vectors, feature_values, feature_vectors, centre, mass }
        })
    }

    /// Σ weight · (x − centre)(x − centre)ᵀ, estimated from a systematic sample if there are many images: each is drawn
    /// with probability proportional to its weight, as a few uncertain ones can have most of it.
    fn gram(features: &Tensor, centre: &Tensor, weights: &Tensor, mass: f64) -> Tensor {
        let (images, d) = (features.size()[0], features.size()[1]);
        let rows = Self::rows(images, d);
        let scaled = if rows == images {
            (features - centre) * weights.sqrt().unsqueeze(1)
        } else {
            let share = mass / rows as f64;
            let marks = (Tensor::arange(rows, (Kind::Double, features.device())) + 0.5) * share;
            let drawn = weights.cumsum(0, Kind::Double).searchsorted(&marks, false, false, "left", None::<Tensor>);
            (features.index_select(0, &drawn.clamp_max(images - 1)) - centre) * share.sqrt()
        };
        // For an estimate single precision is enough, and twice as fast.
        let scaled = scaled.to_kind(Kind::Float);
        scaled.tr().matmul(&scaled).to_kind(Kind::Double)
    }

    /// The inverse of the estimate with ridge λ on the weights, times (weights [classes, d], bias [classes]), laid out
    /// as a point.
    fn solve(&self, weight: &Tensor, bias: &Tensor, strength: f64) -> Tensor {
        // Around the centre the estimate splits into a block for the weights and one for the bias.
        let weight = weight - bias.outer(&self.centre);
        let turned = self.class_vectors.tr().matmul(&weight).matmul(&self.feature_vectors);
        let divided = turned / (self.class_values.outer(&self.feature_values) + strength);
        let weight = self.class_vectors.matmul(&divided).matmul(&self.feature_vectors.tr());
        // Adding the same bias to all classes changes nothing: a direction without curvature, in which a gradient is
        // only rounding error.
        let bias = bias - bias.mean(Kind::Double);
        let floor = self.class_values.max().double_value(&[]).max(1e-300) * 1e-9;
        let turned = self.class_vectors.tr().mv(&bias) / (self.class_values.clamp_min(floor) * self.mass);
        let bias = self.class_vectors.mv(&turned) - weight.mv(&self.centre);
        Tensor::cat(&[weight, bias.unsqueeze(1)], 1).view(-1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_measure::rng::Rng;
    use tch::Device;

    /// Rectified, correlated features around class means, and labels.
    fn drawn(n: i64, d: i64, classes: i64) -> (Tensor, Tensor) {
        let mut rng = Rng::new(4, "test", 0, 0);
        let mut normal = |rows: i64, columns: i64| {
            let values: Vec<f64> = (0..rows * columns).map(|_| rng.normal()).collect();
            Tensor::from_slice(&values).view([rows, columns])
        };
        let labels = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(classes);
        let noise = normal(n, d);
        let raw = (noise + normal(classes, d).index_select(0, &labels) * 0.7).matmul(&normal(d, d));
        ((raw + 1.0).relu().to_kind(Kind::Float), labels)
    }

    #[test]
    fn gradient_and_objective_match_autograd() {
        let (features, labels) = drawn(40, 5, 3);
        let mut regression = Regression::new(&features, &labels, 3).unwrap();
        let problem = &mut regression.problem;
        problem.restart(0.7);
        let at = problem.zero() + Tensor::linspace(-1.0, 1.0, 18, (Kind::Double, Device::Cpu)).sin();
        let (value, gradient) = problem.evaluate(&at);
        let leaf = at.set_requires_grad(true);
        let (weight, bias) = problem.split(&leaf);
        let scores = problem.features.matmul(&weight.tr()) + bias;
        let entropy = scores.log_softmax(1, Kind::Double).nll_loss(&labels) * 40.0;
        let loss = entropy + weight.square().sum(Kind::Double) * 0.35;
        let expected = Tensor::run_backward(&[&loss], &[&leaf], false, false);
        assert!((value - loss.double_value(&[])).abs() < 1e-10);
        assert!((gradient - &expected[0]).abs().max().double_value(&[]) < 1e-10);
    }

    #[test]
    fn the_estimate_is_the_hessian_if_all_images_are_equally_uncertain() {
        // At zero every image has the same probabilities, so the Hessian is exactly the Kronecker product.
        let (features, labels) = drawn(30, 4, 3);
        let mut regression = Regression::new(&features, &labels, 3).unwrap();
        let problem = &mut regression.problem;
        problem.restart(0.5);
        let (_, at_zero) = problem.evaluate(&problem.zero());
        // A small step without a component common to all classes, which has no curvature in the bias.
        let vector = Tensor::linspace(0.0, 9.0, 15, (Kind::Double, Device::Cpu)).cos().view([3, 5]);
        let vector = (&vector - vector.mean_dim(0, true, None)).view(-1);
        let (_, near) = problem.evaluate(&(&vector * 1e-6));
        let again = problem.precondition(&((near - at_zero) / 1e-6));
        let error = (&again - &vector).abs().max().double_value(&[]);
        assert!(error < 1e-4, "{error}");
    }

    #[test]
    fn a_path_ends_where_a_single_fit_does() {
        let (features, labels) = drawn(300, 12, 4);
        let mut path = Regression::new(&features, &labels, 4).unwrap();
        for strength in [1e3, 1e2, 1e1, 1.0, 0.1] {
            let along = path.fit(strength, 1e-9).unwrap();
            let alone = Regression::new(&features, &labels, 4).unwrap().fit(strength, 1e-9).unwrap();
            assert!((along.objective / alone.objective - 1.0).abs() < 1e-9, "{strength}");
            let apart = along.classifier.scores(&features) - alone.classifier.scores(&features);
            assert!(apart.abs().max().double_value(&[]) < 1e-4, "{strength}");
        }
    }

    #[test]
    fn the_bias_is_not_penalised() {
        // However strong the penalty, the class frequencies remain.
        let features = Tensor::linspace(5.0, 6.0, 10, (Kind::Float, Device::Cpu)).view([10, 1]);
        let labels = Tensor::from_slice(&[0i64, 1, 1, 1, 0, 1, 1, 1, 1, 1]);
        let fit = Regression::new(&features, &labels, 2).unwrap().fit(1e9, 1e-9).unwrap();
        let shares = fit.classifier.scores(&features).softmax(1, Kind::Double).mean_dim(0, false, None);
        assert!((shares.double_value(&[1]) - 0.8).abs() < 1e-6);
        let entropy = -10.0 * (0.8 * 0.8f64.ln() + 0.2 * 0.2f64.ln());
        assert!((fit.objective - entropy).abs() < 1e-6, "{}", fit.objective);
    }

    #[test]
    fn invalid_data_is_an_error() {
        let features = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
        let error = |labels: &[i64], features: &Tensor| {
            Regression::new(features, &Tensor::from_slice(labels), 2).unwrap_err().to_string()
        };
        assert!(error(&[0, 1], &features).contains("3 images"));
        assert!(error(&[0, 1, 2], &features).contains("from 0 to 2"));
        assert!(error(&[0, 1, 1], &(features * f64::NAN)).contains("not finite"));
    }
}
