//! Kind `transfer_eval`: logistic regression on frozen features, with the strength chosen on validation images.

use super::transfer_several::rank_images;
use crate::task::{Stopped, Task};
use anyhow::{Result, ensure};
use caco_kinds::{TransferEval, TransferMetric};
use caco_learn::{
    device,
    eval::{
        features::{Features, Labels},
        linear::likeliest,
        logistic::{Classifier, Regression},
        predictions, split,
    },
    tensors::Tensors,
};
use caco_measure::predictions::{Answers, Figure, Predictions};
use caco_measure::{metric::Metric, score};
use caco_pipeline::{kind::Kind as _, progress::Progress};
use tch::Tensor;

/// Largest absolute gradient entry, per image, at which a fit has converged.
pub(super) const TOLERANCE: f64 = 1e-9;

/// Writes `classifier.safetensors` and `predictions.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: TransferEval = task.parameters()?;
    device::open("cpu", task.threads, parameters.determinism)?;
    let sets = read(task, &parameters)?;
    let figure = match parameters.metric {
        TransferMetric::Map11 => return rank_images(task, &parameters, sets),
        TransferMetric::Top1 => Figure::Top1,
        TransferMetric::MeanPerClass => Figure::MeanPerClass,
    };
    let Sets { fit_on, choose_on, test } = sets;
    let tried = try_all(task, &parameters, &fit_on, &choose_on, figure)?;
    let (strength, on_val) = best(&tried);
    let all = Tensor::cat(&[&fit_on.features, &choose_on.features], 0);
    let labels = [fit_on.labels.one()?, choose_on.labels.one()?].concat();
    let classes = test.set.classes.len() as i64;
    let classifier = Regression::new(&all, &Tensor::from_slice(&labels), classes)?.fit(strength, TOLERANCE)?.classifier;
    let likeliest = likeliest(&classifier.scores(&test.features), 1)?;
    let predictions = Predictions {
        evaluation: TransferEval::NAME.into(),
        split: "test".into(),
        images: Some(test.set.images),
        classes: test.set.classes,
        figures: vec![figure],
        answers: Answers::Classes { labels: test.labels.one()?.into(), likeliest },
    };
    write(task, &classifier, strength, &tried)?;
    predictions::write(&predictions, &task.output("predictions.safetensors"))?;
    let mut metrics = predictions.metrics();
    metrics.push(Metric::new(figure.name(), "val", on_val));
    metrics.push(Metric::new("strength", "val", strength));
    task.metrics(&metrics)
}

/// The three sets of images, with the same classes.
pub(super) struct Sets {
    pub fit_on: Features,
    pub choose_on: Features,
    pub test: Features,
}

fn read(task: &Task, parameters: &TransferEval) -> Result<Sets> {
    let train = Features::read(task.input("train")?)?;
    let test = Features::read(task.input("test")?)?;
    let classes = train.set.classes.len();
    ensure!(train.set.classes == test.set.classes, "train and test images have different classes");
    if parameters.val.is_some() {
        let val = Features::read(task.input("val")?)?;
        ensure!(train.set.classes == val.set.classes, "train and val images have different classes");
        return Ok(Sets { fit_on: train, choose_on: val, test });
    }
    let (share, seed) = (parameters.val_share, parameters.seed);
    let split = match &train.labels {
        Labels::One(labels) => split::stratified(labels, classes, share, seed),
        Labels::Several(_) => split::stratified(&vec![0; train.images()], 1, share, seed),
    };
    Ok(Sets { fit_on: train.select(&split.train), choose_on: train.select(&split.val), test })
}

/// Each strength, the strongest first, with its metric on the validation images.
#[tracing::instrument(name = "choose", skip_all)]
fn try_all(
    task: &Task,
    parameters: &TransferEval,
    fit_on: &Features,
    choose_on: &Features,
    figure: Figure,
) -> Result<Vec<(f64, f64)>> {
    let classes = fit_on.set.classes.len();
    let labels = Tensor::from_slice(fit_on.labels.one()?);
    let mut regression = Regression::new(&fit_on.features, &labels, classes as i64)?;
    let to_guess = choose_on.labels.one()?;
    let mut tried = vec![];
    // From strong to weak: each fit starts from the previous, smoother results.
    for strength in strengths(parameters).into_iter().rev() {
        let classifier = regression.fit(strength, TOLERANCE)?.classifier;
        let answers = likeliest(&classifier.scores(&choose_on.features), 1)?;
        let right = score::hits(to_guess, &answers, 1, 1);
        let value = match figure {
            Figure::MeanPerClass => score::mean_per_class(to_guess, &right, classes, None),
            _ => right.iter().filter(|r| **r).count() as f64 / right.len() as f64,
        };
        tried.push((strength, value));
        let (done, total) = (tried.len() as u64, parameters.strengths.into());
        let note = format!("val {:.4}", best(&tried).1);
        task.report(&Progress { done, total, unit: "strengths".into(), note });
        if task.stopping() {
            return Err(Stopped.into());
        }
    }
    Ok(tried)
}

/// The strength with the best metric on the validation images, the stronger one if equal; and that metric.
pub(super) fn best(tried: &[(f64, f64)]) -> (f64, f64) {
    let first = tried[0];
    tried.iter().fold(first, |best, &one| if one.1 > best.1 { one } else { best })
}

/// Log-spaced strengths, the weakest first.
pub(super) fn strengths(parameters: &TransferEval) -> Vec<f64> {
    let (low, high) = (parameters.range.0.ln(), parameters.range.1.ln());
    let steps = f64::from(parameters.strengths.max(2) - 1);
    (0..parameters.strengths).map(|i| (low + (high - low) * f64::from(i) / steps).exp()).collect()
}

/// Writes `weight` and `bias`; the strengths tried, each with its metric on the validation images, are metadata.
fn write(task: &Task, classifier: &Classifier, strength: f64, tried: &[(f64, f64)]) -> Result<()> {
    let mut file = Tensors::default();
    file.insert("weight", &classifier.weight);
    file.insert("bias", &classifier.bias);
    file.metadata.insert("strength".into(), strength.to_string());
    file.metadata.insert("tried".into(), serde_json::to_string(tried)?);
    file.write(&task.output("classifier.safetensors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_strengths_the_stronger_is_best() {
        assert_eq!(best(&[(100.0, 0.5), (10.0, 0.7), (1.0, 0.7), (0.1, 0.6)]), (10.0, 0.7));
    }

    #[test]
    fn strengths_are_spaced_as_in_the_protocol() {
        let parameters: TransferEval = serde_json::from_str(r#"{"train": "a", "test": "b"}"#).unwrap();
        let found = strengths(&parameters);
        assert_eq!(found.len(), 45);
        assert!((found[0] / 1e-6 - 1.0).abs() < 1e-12 && (found[44] / 1e5 - 1.0).abs() < 1e-12);
        assert!(found.windows(2).all(|pair| (pair[1] / pair[0] - 10f64.powf(0.25)).abs() < 1e-9));
        assert_eq!(strengths(&TransferEval { strengths: 1, ..parameters }), [found[0]]);
    }
}
