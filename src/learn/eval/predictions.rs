//! Writes the predictions of evaluations.

use crate::tensors::Tensors;
use anyhow::Result;
use caco_measure::predictions::{Answers, Predictions};
use std::path::Path;
use tch::Tensor;

/// Writes `labels` i64 [n] and `answers` i64 [n, width], or, if images can show several classes, `labels` i64 [n,
/// classes] of 0 and 1 and `scores` f64 [n, classes]; everything else is metadata.
pub fn write(predictions: &Predictions, path: &Path) -> Result<()> {
    let mut file = Tensors::default();
    let (n, labels) = (predictions.samples() as i64, Tensor::from_slice(&predictions.labels()));
    match &predictions.answers {
        Answers::Classes { likeliest, .. } => {
            file.insert("labels", &labels);
            file.insert("answers", &Tensor::from_slice(likeliest).view([n, -1]));
        }
        Answers::Scores { scores, .. } => {
            file.insert("labels", &labels.view([n, -1]));
            file.insert("scores", &Tensor::from_slice(scores).view([n, -1]));
        }
    }
    let mut say = |key: &str, value: String| drop(file.metadata.insert(key.into(), value));
    say("evaluation", predictions.evaluation.clone());
    say("split", predictions.split.clone());
    say("classes", serde_json::to_string(&predictions.classes)?);
    say("figures", serde_json::to_string(&predictions.figures)?);
    if let Some(images) = &predictions.images {
        say("images", images.clone());
    }
    file.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_measure::predictions::Figure;

    fn sample() -> Predictions {
        Predictions {
            evaluation: "linear_eval".into(),
            split: "test".into(),
            images: Some("ab".into()),
            classes: ["a", "b", "c", "d", "e", "f"].map(String::from).into(),
            figures: vec![Figure::Top1, Figure::Top5, Figure::MeanPerClass],
            answers: Answers::Classes {
                labels: vec![0, 1, 1, 5],
                likeliest: vec![0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4],
            },
        }
    }

    /// Three images that can show two classes.
    fn several() -> Predictions {
        Predictions {
            classes: ["a", "b"].map(String::from).into(),
            figures: vec![Figure::Map11],
            answers: Answers::Scores {
                shown: vec![true, false, false, true, true, true],
                scores: vec![0.9, 0.8, 0.5, 0.7, 0.3, -0.1],
            },
            ..sample()
        }
    }

    #[test]
    fn images_with_several_classes_are_ranked() {
        // Class a ranks + − +, class b − + +: (6 · 1 + 5 · 2/3) / 11 and 2/3.
        let metric = &several().metrics()[0];
        assert_eq!((metric.name.as_str(), metric.samples), ("map11", Some(3)));
        assert!((metric.value - ((6.0 + 5.0 * 2.0 / 3.0) / 11.0 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.safetensors");
        write(&several(), &path).unwrap();
        assert_eq!(Predictions::read(&path).unwrap(), several());
        let wrong = Predictions { figures: vec![Figure::Top1], ..several() };
        write(&wrong, &path).unwrap();
        assert!(format!("{:#}", Predictions::read(&path).unwrap_err()).contains("one answer per image"));
    }

    #[test]
    fn metrics_are_computed_from_answers() {
        let metrics = sample().metrics();
        let found: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.split.as_str(), m.value)).collect();
        let per_class = (1.0 + 0.5 + 0.0) / 3.0;
        assert_eq!(found, [("top1", "test", 0.5), ("top5", "test", 0.75), ("mean_per_class", "test", per_class)]);
        assert!(metrics.iter().all(|m| m.interval.is_some_and(|(low, high)| low <= m.value && m.value <= high)));
    }

    #[test]
    fn a_file_reproduces_the_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.safetensors");
        write(&sample(), &path).unwrap();
        let read = Predictions::read(&path).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.metrics(), sample().metrics());
    }

    #[test]
    fn broken_files_have_distinct_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.safetensors");
        let error = |change: fn(&mut Predictions)| {
            let mut predictions = sample();
            change(&mut predictions);
            write(&predictions, &path).unwrap();
            format!("{:#}", Predictions::read(&path).unwrap_err())
        };
        let likeliest = |p: &mut Predictions| match &mut p.answers {
            Answers::Classes { likeliest, .. } => std::mem::take(likeliest),
            Answers::Scores { .. } => vec![],
        };
        let with = |answers: fn(Vec<i64>) -> Vec<i64>| {
            let mut predictions = sample();
            let changed = answers(likeliest(&mut predictions));
            predictions.answers = Answers::Classes { labels: vec![0, 1, 1, 5], likeliest: changed };
            write(&predictions, &path).unwrap();
            format!("{:#}", Predictions::read(&path).unwrap_err())
        };
        assert!(with(|answers| answers.iter().map(|a| a + 1).collect()).contains("class 6 of 6"));
        assert!(with(|answers| answers[..4].into()).contains("1 answers per image, its metrics need 5"));
        assert!(error(|p| p.classes.clear()).contains("class 0 of 0"));
    }
}
