//! One linear classifier per class, for images that can show several classes.

use super::{
    logistic::{Classifier, Regression},
    svm::Machines,
};
use crate::model::unit;
use anyhow::{Result, ensure};
use caco_kinds::TransferClassifier;
use tch::{Kind, Tensor};

/// The training images shared by the classifiers of all classes.
#[derive(Debug)]
pub struct OneVsRest<'a> {
    learner: Learner,
    shown: &'a [bool],
    classes: usize,
}

#[derive(Debug)]
enum Learner {
    /// Features [n, d].
    Logistic(Tensor),
    Svm(Machines),
}

/// The weight of an image that shows the class, for a support vector machine (Goyal et al. 2019, "Scaling and
/// benchmarking self-supervised visual representation learning", the published code).
const POSITIVES: f64 = 2.0;

/// Prepares features for a classifier: a support vector machine takes them at unit length.
pub fn prepared(features: &Tensor, kind: TransferClassifier) -> Tensor {
    match kind {
        TransferClassifier::Logistic => features.shallow_clone(),
        TransferClassifier::Svm => unit(features, 1),
    }
}

impl<'a> OneVsRest<'a> {
    /// From [`prepared`] features [n, d], and image by image whether each class is shown.
    pub fn new(features: &Tensor, shown: &'a [bool], classes: usize, kind: TransferClassifier) -> Result<Self> {
        let (n, _) = features.size2()?;
        ensure!(shown.len() == n as usize * classes, "{n} images, {} labels of {classes} classes", shown.len());
        let learner = match kind {
            TransferClassifier::Logistic => Learner::Logistic(features.shallow_clone()),
            TransferClassifier::Svm => Learner::Svm(Machines::new(features)?),
        };
        Ok(OneVsRest { learner, shown, classes })
    }

    /// The classifier of one class for each strength λ, in this order: weights [d] and bias that minimise Σ loss + λ/2
    /// ‖weights‖².
    pub fn fit(&self, class: usize, strengths: &[f64], tolerance: f64) -> Result<Vec<(Tensor, f64)>> {
        let positive: Vec<bool> = self.shown.iter().skip(class).step_by(self.classes).copied().collect();
        let count = positive.iter().filter(|&&there| there).count();
        let message = format!("{count} of {} training images show class number {class}", positive.len());
        ensure!(
            0 < count && count < positive.len(),
            "{message}; the class needs images that show it and images that do not"
        );
        let features = match &self.learner {
            Learner::Svm(machines) => return machines.fit(&positive, POSITIVES, strengths),
            Learner::Logistic(features) => features,
        };
        let labels: Vec<i64> = positive.iter().map(|&there| there.into()).collect();
        let mut regression = Regression::new(features, &Tensor::from_slice(&labels), 2)?;
        let mut fits = Vec::with_capacity(strengths.len());
        for strength in strengths {
            // As the weights of the two outputs are opposite, twice λ/2 (‖w/2‖² + ‖−w/2‖²) is λ/2 ‖w‖².
            let Classifier { weight, bias } = regression.fit(2.0 * strength, tolerance)?.classifier;
            let bias = bias.double_value(&[1]) - bias.double_value(&[0]);
            fits.push((weight.get(1) - weight.get(0), bias));
        }
        Ok(fits)
    }
}

/// Joins classifiers of single classes into one.
pub fn joined(rows: &[(Tensor, f64)]) -> Classifier {
    let weights: Vec<&Tensor> = rows.iter().map(|(weight, _)| weight).collect();
    let bias: Vec<f64> = rows.iter().map(|(_, bias)| *bias).collect();
    Classifier { weight: Tensor::stack(&weights, 0).to_kind(Kind::Double), bias: Tensor::from_slice(&bias) }
}
