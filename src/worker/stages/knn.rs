//! Kind `knn`: weighted k-nearest-neighbour accuracy on frozen features.

use crate::task::Task;
use anyhow::{Result, ensure};
use caco_kinds::Knn;
use caco_learn::{
    device,
    eval::{
        features::Features,
        knn::{Vote, classify, sample},
        predictions,
    },
};
use caco_measure::predictions::{Answers, Figure, Predictions};
use caco_pipeline::kind::Kind as _;

/// Writes `predictions.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Knn = task.parameters()?;
    device::open("cpu", task.threads, parameters.determinism)?;
    let train = Features::read(task.input("train")?)?;
    let test = Features::read(task.input("test")?)?;
    let (ours, theirs) = (&train.set.classes, &test.set.classes);
    ensure!(
        ours == theirs,
        "train and test images have different classes; index both sets with the same classes (of a WebDataset, by the \
         same classes.txt):\n  {ours:?}\n  {theirs:?}"
    );
    let bank = train.select(&sample(train.images(), parameters.share, parameters.seed));
    let voters = bank.images();
    tracing::info!("the {} nearest of {voters} images vote", voters.min(parameters.k as usize));
    let vote = Vote { k: parameters.k, temperature: parameters.temperature };
    let likeliest = classify(&bank.features, bank.labels.one()?, &test.features, ours.len(), vote)?;
    let predictions = Predictions {
        evaluation: Knn::NAME.into(),
        split: "test".into(),
        images: Some(test.set.images),
        classes: test.set.classes,
        figures: vec![Figure::Top1],
        answers: Answers::Classes { labels: test.labels.one()?.into(), likeliest },
    };
    predictions::write(&predictions, &task.output("predictions.safetensors"))?;
    task.metrics(&predictions.metrics())
}
