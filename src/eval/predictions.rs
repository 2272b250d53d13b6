//! What an evaluation answered, image by image: enough to compute each of its figures again.

use crate::{
    interval,
    metric::Metric,
    score::{self, Ranking},
    tensors::Tensors,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// A figure that is computed from predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Figure {
    /// Share of images whose first answer is right.
    #[serde(rename = "top1")]
    Top1,
    /// Share of images whose right label is among the first five answers.
    #[serde(rename = "top5")]
    Top5,
    /// Mean over classes of the share of images whose first answer is right.
    #[serde(rename = "mean_per_class")]
    MeanPerClass,
    /// Mean over classes of the 11-point average precision.
    #[serde(rename = "map11")]
    Map11,
}

impl Figure {
    /// The name that its metric has.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Top1 => "top1",
            Figure::Top5 => "top5",
            Figure::MeanPerClass => "mean_per_class",
            Figure::Map11 => "map11",
        }
    }
}

/// The answers of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// The kind of evaluation, such as `knn`.
    pub evaluation: String,
    /// The images: `val` or `test`.
    pub split: String,
    /// A digest of the images, where it is known: equal ones are the same images in the same order.
    pub images: Option<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// What is computed from the answers.
    pub figures: Vec<Figure>,
    /// What was answered.
    pub answers: Answers,
}

/// What is right, and what was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// Of images that show one class.
    Classes {
        /// The right class of each image.
        labels: Vec<i64>,
        /// The same number of classes for each image, the likeliest first.
        likeliest: Vec<i64>,
    },
    /// Of images that can show several: image by image, one entry a class.
    Scores {
        /// Whether the class is there.
        shown: Vec<bool>,
        /// How likely it was held to be, in any unit.
        scores: Vec<f64>,
    },
}

impl Predictions {
    /// How many images were answered.
    pub fn samples(&self) -> usize {
        match &self.answers {
            Answers::Classes { labels, .. } => labels.len(),
            Answers::Scores { shown, .. } => shown.len() / self.classes.len().max(1),
        }
    }

    /// What is right, as numbers: the class of each image, or image by image 1 for each class that is there and 0 for
    /// others.
    pub fn labels(&self) -> Vec<i64> {
        match &self.answers {
            Answers::Classes { labels, .. } => labels.clone(),
            Answers::Scores { shown, .. } => shown.iter().map(|&there| there.into()).collect(),
        }
    }

    /// Whether each image counts as right for `figure`. None do where images can show several classes.
    pub fn right(&self, figure: Figure) -> Vec<bool> {
        let k = if figure == Figure::Top5 { 5 } else { 1 };
        match &self.answers {
            Answers::Classes { labels, likeliest } => {
                score::hits(labels, likeliest, likeliest.len() / labels.len().max(1), k)
            }
            Answers::Scores { .. } => vec![],
        }
    }

    /// The images as each class's scores rank them. None where images show one class each.
    pub fn rankings(&self) -> Vec<Ranking> {
        match &self.answers {
            Answers::Classes { .. } => vec![],
            Answers::Scores { shown, scores } => score::rankings(scores, shown, self.classes.len()),
        }
    }

    /// The figures, with 95 % intervals: Wilson's for shares, a bootstrap over the images for the others.
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

    /// Writes `labels` i64 [n] and `answers` i64 [n, width], or where images can show several classes `labels` i64
    /// [n, classes] of 0 and 1 and `scores` f64 [n, classes]; the rest is metadata.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = Tensors::default();
        let (n, labels) = (self.samples() as i64, Tensor::from_slice(&self.labels()));
        match &self.answers {
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
        say("evaluation", self.evaluation.clone());
        say("split", self.split.clone());
        say("classes", serde_json::to_string(&self.classes)?);
        say("figures", serde_json::to_string(&self.figures)?);
        if let Some(images) = &self.images {
            say("images", images.clone());
        }
        file.write(path)
    }

    /// Reads what [`Predictions::write`] wrote. Errors name the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Tensors::read(path)?;
        Self::from_file(&file).with_context(|| format!("{} does not hold predictions", path.display()))
    }

    fn from_file(file: &Tensors) -> Result<Self> {
        let said = |key: &str| file.metadata.get(key).with_context(|| format!("its metadata lack '{key}'"));
        let tensor = |name: &str, kind: Kind| match file.tensors.get(name) {
            Some(tensor) if tensor.kind() == kind => Ok(tensor.view(-1)),
            Some(tensor) => bail!("its tensor '{name}' is of type {:?}, not {kind:?}", tensor.kind()),
            None => bail!("it has no tensor '{name}'"),
        };
        let labels = Vec::<i64>::try_from(tensor("labels", Kind::Int64)?)?;
        let answers = if file.tensors.contains_key("scores") {
            let scores = Vec::try_from(tensor("scores", Kind::Double)?)?;
            Answers::Scores { shown: labels.iter().map(|&label| label != 0).collect(), scores }
        } else {
            Answers::Classes { labels, likeliest: Vec::try_from(tensor("answers", Kind::Int64)?)? }
        };
        let predictions = Predictions {
            evaluation: said("evaluation")?.clone(),
            split: said("split")?.clone(),
            images: file.metadata.get("images").cloned(),
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
                ensure!(ranked == self.figures.len(), "one answer an image is missing, its figures need it");
            }
            Answers::Classes { labels, likeliest } => {
                let (n, answers) = (labels.len(), likeliest.len());
                ensure!(n > 0 && answers % n == 0 && answers >= n, "{answers} answers for {n} images");
                let (width, needed) = (answers / n, if self.figures.contains(&Figure::Top5) { 5 } else { 1 });
                ensure!(width >= needed, "{width} answers an image, its figures need {needed}");
                ensure!(ranked == 0, "it has no tensor 'scores', its figures need it");
                let outside = labels.iter().chain(likeliest).find(|class| !(0..classes as i64).contains(*class));
                ensure!(outside.is_none(), "class {} of {classes}", outside.copied().unwrap_or_default());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        several().write(&path).unwrap();
        assert_eq!(Predictions::read(&path).unwrap(), several());
        let wrong = Predictions { figures: vec![Figure::Top1], ..several() };
        wrong.write(&path).unwrap();
        assert!(format!("{:#}", Predictions::read(&path).unwrap_err()).contains("one answer an image"));
    }

    #[test]
    fn figures_are_computed_from_answers() {
        let metrics = sample().metrics();
        let found: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.split.as_str(), m.value)).collect();
        let per_class = (1.0 + 0.5 + 0.0) / 3.0;
        assert_eq!(found, [("top1", "test", 0.5), ("top5", "test", 0.75), ("mean_per_class", "test", per_class)]);
        assert!(metrics.iter().all(|m| m.interval.is_some_and(|(low, high)| low <= m.value && m.value <= high)));
    }

    #[test]
    fn a_file_gives_the_figures_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.safetensors");
        sample().write(&path).unwrap();
        let read = Predictions::read(&path).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.metrics(), sample().metrics());
    }

    #[test]
    fn broken_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.safetensors");
        let error = |change: fn(&mut Predictions)| {
            let mut predictions = sample();
            change(&mut predictions);
            predictions.write(&path).unwrap();
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
            predictions.write(&path).unwrap();
            format!("{:#}", Predictions::read(&path).unwrap_err())
        };
        assert!(with(|answers| answers.iter().map(|a| a + 1).collect()).contains("class 6 of 6"));
        assert!(with(|answers| answers[..4].into()).contains("1 answers an image, its figures need 5"));
        assert!(error(|p| p.classes.clear()).contains("class 0 of 0"));
    }
}
