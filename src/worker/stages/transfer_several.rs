//! Kind `transfer_eval` for images that can show several classes: one classifier per class, evaluated by how it ranks
//! the images.

use super::transfer_eval::{Sets, TOLERANCE, best, strengths};
use crate::task::{Stopped, Task};
use anyhow::{Context as _, Result};
use caco_kinds::{TransferClassifier, TransferEval};
use caco_learn::{
    eval::{
        one_vs_rest::{OneVsRest, joined, prepared},
        predictions,
    },
    tensors::Tensors,
};
use caco_measure::predictions::{Answers, Figure, Predictions};
use caco_measure::{metric::Metric, score::Ranking};
use caco_pipeline::{kind::Kind as _, progress::Progress};
use tch::{Kind, Tensor};

/// Writes `classifier.safetensors` and `predictions.safetensors`.
pub fn rank_images(task: &Task, parameters: &TransferEval, sets: Sets) -> Result<()> {
    let Sets { fit_on, choose_on, test } = sets;
    let (kind, classes) = (parameters.classifier, test.set.classes.clone());
    let [fit_features, choose_features, test_features] =
        [&fit_on, &choose_on, &test].map(|set| prepared(&set.features, kind));
    let tried: Vec<f64> = strengths(parameters).into_iter().rev().collect();
    let learner = OneVsRest::new(&fit_features, fit_on.labels.several()?, classes.len(), kind)?;
    let shown = choose_on.labels.several()?;
    // Average precision on the validation images, per class and strength.
    let mut precisions = Vec::with_capacity(classes.len());
    for (class, name) in classes.iter().enumerate() {
        let fits = learner.fit(class, &tried, TOLERANCE).with_context(|| format!("class '{name}'"))?;
        let positive: Vec<bool> = shown.iter().skip(class).step_by(classes.len()).copied().collect();
        let scores = scored(&choose_features, &fits)?;
        let precision = |place: usize| {
            let scores: Vec<f64> = scores.iter().skip(place).step_by(tried.len()).copied().collect();
            Ranking::new(&scores, &positive).eleven_point(None)
        };
        precisions.push((0..tried.len()).map(precision).collect::<Vec<f64>>());
        let (done, total) = (class as u64 + 1, classes.len() as u64);
        task.report(&Progress { done, total, unit: "classes".into(), note: String::new() });
        if task.stopping() {
            return Err(Stopped.into());
        }
    }
    let (chosen, on_val) = choose(kind, &tried, &precisions);
    let all = Tensor::cat(&[&fit_features, &choose_features], 0);
    let labels = [fit_on.labels.several()?, shown].concat();
    let learner = OneVsRest::new(&all, &labels, classes.len(), kind)?;
    let refit = |class: usize| Ok(learner.fit(class, &[chosen[class]], TOLERANCE)?.remove(0));
    let rows = (0..classes.len()).map(refit).collect::<Result<Vec<_>>>()?;
    let predictions = Predictions {
        evaluation: TransferEval::NAME.into(),
        split: "test".into(),
        images: Some(test.set.images.clone()),
        classes,
        figures: vec![Figure::Map11],
        answers: Answers::Scores { shown: test.labels.several()?.into(), scores: scored(&test_features, &rows)? },
    };
    write(task, &rows, &chosen)?;
    predictions::write(&predictions, &task.output("predictions.safetensors"))?;
    let mut metrics = predictions.metrics();
    metrics.push(Metric::new(Figure::Map11.name(), "val", on_val));
    task.metrics(&metrics)
}

/// Scores of features [n, d] under each classifier, image by image.
fn scored(features: &Tensor, rows: &[(Tensor, f64)]) -> Result<Vec<f64>> {
    Ok(Vec::try_from(joined(rows).scores(features).to_kind(Kind::Double).contiguous().view(-1))?)
}

/// The strength of each class, and the resulting mean average precision on the validation images: logistic regressions
/// share one strength, support vector machines have one each.
fn choose(kind: TransferClassifier, tried: &[f64], precisions: &[Vec<f64>]) -> (Vec<f64>, f64) {
    let pairs = |values: Vec<f64>| -> Vec<(f64, f64)> { tried.iter().copied().zip(values).collect() };
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / precisions.len() as f64;
    match kind {
        TransferClassifier::Logistic => {
            let means = (0..tried.len()).map(|i| mean(&mut precisions.iter().map(|of_class| of_class[i])));
            let (strength, value) = best(&pairs(means.collect()));
            (vec![strength; precisions.len()], value)
        }
        TransferClassifier::Svm => {
            let own: Vec<(f64, f64)> = precisions.iter().map(|of_class| best(&pairs(of_class.clone()))).collect();
            (own.iter().map(|(strength, _)| *strength).collect(), mean(&mut own.iter().map(|(_, value)| *value)))
        }
    }
}

/// Writes `weight` [classes, d], `bias` and `strength` [classes].
fn write(task: &Task, rows: &[(Tensor, f64)], strengths: &[f64]) -> Result<()> {
    let mut file = Tensors::default();
    let classifier = joined(rows);
    file.insert("weight", &classifier.weight);
    file.insert("bias", &classifier.bias);
    file.insert("strength", &Tensor::from_slice(strengths));
    file.write(&task.output("classifier.safetensors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regressions_share_a_strength_and_machines_have_one_each() {
        let precisions = [vec![0.9, 0.5, 0.1], vec![0.2, 0.5, 0.5]];
        let (shared, value) = choose(TransferClassifier::Logistic, &[100.0, 10.0, 1.0], &precisions);
        assert_eq!(shared, [100.0, 100.0]);
        assert!((value - 0.55).abs() < 1e-12);
        let (own, value) = choose(TransferClassifier::Svm, &[100.0, 10.0, 1.0], &precisions);
        assert_eq!(own, [100.0, 10.0]);
        assert!((value - 0.7).abs() < 1e-12);
    }
}
