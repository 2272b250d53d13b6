//! The predictions of an evaluation, image by image: enough to recompute each of its metrics, without a tensor library.

use crate::{
    interval,
    metric::Metric,
    score::{self, Ranking},
    tensor_file::TensorFile,
};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// A metric computed from predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Figure {
    /// Fraction of images whose first answer is correct.
    #[serde(rename = "top1")]
    Top1,
    /// Fraction of images whose correct label is among the first five answers.
    #[serde(rename = "top5")]
    Top5,
    /// Mean over classes of the fraction of images whose first answer is correct.
    #[serde(rename = "mean_per_class")]
    MeanPerClass,
    /// Mean over classes of the 11-point average precision.
    #[serde(rename = "map11")]
    Map11,
}

impl Figure {
    /// The name of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Top1 => "top1",
            Figure::Top5 => "top5",
            Figure::MeanPerClass => "mean_per_class",
            Figure::Map11 => "map11",
        }
    }
}

/// The predictions of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// The kind of evaluation, such as `knn`.
    pub evaluation: String,
    /// The images: `val` or `test`.
    pub split: String,
    /// A digest of the images, if known: equal digests mean the same images in the same order.
    pub images: Option<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The metrics computed from the answers.
    pub figures: Vec<Figure>,
    /// The labels and answers.
    pub answers: Answers,
}

/// Labels and answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// For images that show one class.
    Classes {
        /// The correct class of each image.
        labels: Vec<i64>,
        /// The same number of classes for each image, the likeliest first.
        likeliest: Vec<i64>,
    },
    /// For images that can show several classes: image by image, one entry per class.
    Scores {
        /// Whether the class is shown.
        shown: Vec<bool>,
        /// Its score, on any scale.
        scores: Vec<f64>,
    },
}

impl Predictions {
    /// Number of images.
    pub fn samples(&self) -> usize {
        match &self.answers {
            Answers::Classes { labels, .. } => labels.len(),
            Answers::Scores { shown, .. } => shown.len() / self.classes.len().max(1),
        }
    }

    /// The labels as numbers: the class of each image, or image by image 1 for each class shown and 0 for the others.
    pub fn labels(&self) -> Vec<i64> {
        match &self.answers {
            Answers::Classes { labels, .. } => labels.clone(),
            Answers::Scores { shown, .. } => shown.iter().map(|&there| there.into()).collect(),
        }
    }

    /// Whether each image counts as correct for `figure`. Empty if images can show several classes.
    pub fn right(&self, figure: Figure) -> Vec<bool> {
        let k = if figure == Figure::Top5 { 5 } else { 1 };
        match &self.answers {
            Answers::Classes { labels, likeliest } => {
                score::hits(labels, likeliest, likeliest.len() / labels.len().max(1), k)
            }
            Answers::Scores { .. } => vec![],
        }
    }

    /// The images ranked by the scores of each class. Empty if images show one class each.
    pub fn rankings(&self) -> Vec<Ranking> {
        match &self.answers {
            Answers::Classes { .. } => vec![],
            Answers::Scores { shown, scores } => score::rankings(scores, shown, self.classes.len()),
        }
    }

    /// The metrics with 95 % intervals: Wilson's for proportions, a bootstrap over the images for the others.
    pub fn metrics(&self) -> Vec<Metric> {
        self.figures.iter().map(|&figure| self.metric(figure)).collect()
    }

    fn metric(&self, figure: Figure) -> Metric {
        let (right, rankings, labels) = (self.right(figure), self.rankings(), self.labels());
        let resampled = |mean: &dyn Fn(Option<&[u32]>) -> f64| Metric {
            samples: Some(self.samples() as u64),
            interval: Some(interval::bootstrap(self.samples(), 0, |counts| mean(Some(counts)))),
            ..Metric::new(figure.name(), &self.split, mean(None))
        };
        match figure {
            Figure::Top1 | Figure::Top5 => {
                let count = right.iter().filter(|right| **right).count() as u64;
                Metric::share(figure.name(), &self.split, count, self.samples() as u64)
            }
            Figure::MeanPerClass => {
                resampled(&|counts| score::mean_per_class(&labels, &right, self.classes.len(), counts))
            }
            Figure::Map11 => resampled(&|counts| score::mean_average_precision(&rankings, counts)),
        }
    }

    /// Reads a file written by `Predictions::write`. Errors name the file and the fault.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{} is not a predictions file", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let TensorFile { tensors, metadata } = TensorFile::read(bytes)?;
        let said = |key: &str| metadata.get(key).with_context(|| format!("its metadata lacks '{key}'"));
        let tensor = |name: &str| tensors.get(name).with_context(|| format!("it has no tensor '{name}'"));
        let integers = |name: &str| {
            let tensor = tensor(name)?;
            tensor.integers().with_context(|| format!("its tensor '{name}' is of type {}, not I64", tensor.dtype))
        };
        let labels = integers("labels")?;
        let answers = if let Some(scores) = tensors.get("scores") {
            let wrong = || format!("its tensor 'scores' is of type {}, not F64", scores.dtype);
            let scores = scores.floats().filter(|_| scores.dtype == "F64").with_context(wrong)?;
            Answers::Scores { shown: labels.iter().map(|&label| label != 0).collect(), scores }
        } else {
            Answers::Classes { labels, likeliest: integers("answers")? }
        };
        let predictions = Predictions {
            evaluation: said("evaluation")?.clone(),
            split: said("split")?.clone(),
            images: metadata.get("images").cloned(),
            classes: serde_json::from_str(said("classes")?).context("its metadata's 'classes'")?,
            figures: serde_json::from_str(said("figures")?).context("its metadata's 'figures'")?,
            answers,
        };
        predictions.check()?;
        Ok(predictions)
    }

    fn check(&self) -> Result<()> {
        let classes = self.classes.len();
        let ranked = self.figures.iter().filter(|figure| **figure == Figure::Map11).count();
        match &self.answers {
            Answers::Scores { shown, scores } => {
                let fits = classes > 0 && !shown.is_empty() && shown.len() % classes == 0;
                ensure!(fits && shown.len() == scores.len(), "{} scores of {classes} classes", scores.len());
                ensure!(ranked == self.figures.len(), "one answer per image is missing, its metrics need it");
            }
            Answers::Classes { labels, likeliest } => {
                let (n, answers) = (labels.len(), likeliest.len());
                ensure!(n > 0 && answers % n == 0 && answers >= n, "{answers} answers for {n} images");
                let (width, needed) = (answers / n, if self.figures.contains(&Figure::Top5) { 5 } else { 1 });
                ensure!(width >= needed, "{width} answers per image, its metrics need {needed}");
                ensure!(ranked == 0, "it has no tensor 'scores', its metrics need it");
                let outside = labels.iter().chain(likeliest).find(|class| !(0..classes as i64).contains(*class));
                ensure!(outside.is_none(), "class {} of {classes}", outside.copied().unwrap_or_default());
            }
        }
        Ok(())
    }
}
