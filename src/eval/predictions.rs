//! What an evaluation answered, image by image: enough to compute each of its figures again.

use crate::{interval, metric::Metric, score, tensors::Tensors};
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
}

impl Figure {
    /// The name that its metric has.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Top1 => "top1",
            Figure::Top5 => "top5",
            Figure::MeanPerClass => "mean_per_class",
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
    /// The right class of each image.
    pub labels: Vec<i64>,
    /// `width` classes an image, the likeliest first.
    pub answers: Vec<i64>,
}

impl Predictions {
    /// Answers an image.
    pub fn width(&self) -> usize {
        self.answers.len() / self.labels.len().max(1)
    }

    /// Whether each image counts as right for `figure`.
    pub fn right(&self, figure: Figure) -> Vec<bool> {
        let k = if figure == Figure::Top5 { 5 } else { 1 };
        score::hits(&self.labels, &self.answers, self.width(), k)
    }

    /// The figures, with 95 % intervals: Wilson's for shares, a bootstrap over the images for the others.
    pub fn metrics(&self) -> Vec<Metric> {
        self.figures.iter().map(|&figure| self.metric(figure)).collect()
    }

    fn metric(&self, figure: Figure) -> Metric {
        let (right, samples) = (self.right(figure), self.labels.len() as u64);
        if figure != Figure::MeanPerClass {
            let count = right.iter().filter(|right| **right).count() as u64;
            return Metric::share(figure.name(), &self.split, count, samples);
        }
        let mean = |counts: Option<&[u32]>| score::mean_per_class(&self.labels, &right, self.classes.len(), counts);
        let interval = interval::bootstrap(right.len(), 0, |counts| mean(Some(counts)));
        Metric {
            samples: Some(samples),
            interval: Some(interval),
            ..Metric::new(figure.name(), &self.split, mean(None))
        }
    }

    /// Writes `labels` i64 [n] and `answers` i64 [n, width]; the rest is metadata.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = Tensors::default();
        file.insert("labels", &Tensor::from_slice(&self.labels));
        file.insert("answers", &Tensor::from_slice(&self.answers).view([self.labels.len() as i64, -1]));
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
        let tensor = |name: &str| match file.tensors.get(name) {
            Some(tensor) if tensor.kind() == Kind::Int64 => Ok(tensor),
            Some(tensor) => bail!("its tensor '{name}' is of type {:?}, not i64", tensor.kind()),
            None => bail!("it has no tensor '{name}'"),
        };
        let predictions = Predictions {
            evaluation: said("evaluation")?.clone(),
            split: said("split")?.clone(),
            images: file.metadata.get("images").cloned(),
            classes: serde_json::from_str(said("classes")?).context("its metadata's 'classes'")?,
            figures: serde_json::from_str(said("figures")?).context("its metadata's 'figures'")?,
            labels: Vec::try_from(tensor("labels")?)?,
            answers: Vec::try_from(tensor("answers")?.view(-1))?,
        };
        predictions.check()?;
        Ok(predictions)
    }

    fn check(&self) -> Result<()> {
        let (n, answers, classes) = (self.labels.len(), self.answers.len(), self.classes.len() as i64);
        ensure!(n > 0 && answers % n == 0 && answers >= n, "{answers} answers for {n} images");
        let needed = if self.figures.contains(&Figure::Top5) { 5 } else { 1 };
        ensure!(self.width() >= needed, "{} answers an image, its figures need {needed}", self.width());
        let outside = self.labels.iter().chain(&self.answers).find(|class| !(0..classes).contains(*class));
        ensure!(outside.is_none(), "class {} of {classes}", outside.copied().unwrap_or_default());
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
            labels: vec![0, 1, 1, 5],
            answers: vec![0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4],
        }
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
        assert!(error(|p| p.answers[0] = 6).contains("class 6 of 6"));
        assert!(error(|p| p.answers.truncate(4)).contains("1 answers an image, its figures need 5"));
        assert!(error(|p| p.classes.clear()).contains("class 0 of 0"));
    }
}
