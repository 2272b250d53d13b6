//! Kind `linear_eval`: a linear classifier on a frozen encoder.

use super::reading::{dataset, images_digest, turn};
use crate::{
    task::{Stopped, Task},
    team,
};
use anyhow::{Result, ensure};
use caco_data::{Loader, Reading, Transform};
use caco_kinds::{Crop, Filter, Flip, LinearEval, Operation, View};
use caco_learn::{
    device,
    eval::{
        linear::{self, Backbone, State, Training, Watch},
        predictions,
    },
    model::Encoder,
    transfer,
};
use caco_measure::metric::Metric;
use caco_measure::predictions::{Answers, Figure, Predictions};
use caco_pipeline::{kind::Kind as _, progress::Progress};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tracing::info_span;

/// Writes `classifier.safetensors` and `predictions.safetensors`; of several processes, the first one does.
pub fn run(task: &Task) -> Result<()> {
    let parameters: LinearEval = task.parameters()?;
    let device = device::open(&task.device, task.threads, parameters.determinism)?;
    team::join(&task.member, device)?;
    let encoder = Encoder::load(task.input("encoder")?, device)?;
    let (train, test) = (dataset(task, "train")?, dataset(task, "test")?);
    ensure!(
        train.classes == test.classes,
        "train and test images have different classes:\n  {:?}\n  {:?}",
        train.classes,
        test.classes
    );
    let several = train.shown().is_some() || test.shown().is_some();
    ensure!(
        !several,
        "an image of these sets can show several classes; evaluate them by transfer_eval with metric: Map11"
    );
    let reading = |transform, shuffle| Reading {
        transform,
        batch: parameters.batch as usize,
        shuffle,
        drop_last: false,
        seed: parameters.seed,
        threads: task.threads,
    };
    let source = Loader::new(&train, reading(Transform::Views(vec![crop(&parameters)]), true))?
        .decoding(parameters.decode)
        .in_turn(turn(task))
        .in_memory(transfer::memory(device));
    let backbone = Backbone { encoder: &encoder, precision: parameters.precision, device };
    let training = Training {
        epochs: parameters.epochs.into(),
        rate: parameters.rate * f64::from(parameters.batch) / 256.0,
        momentum: parameters.momentum,
        trust: parameters.trust,
        seed: parameters.seed,
    };
    let (classes, d) = (train.classes.len() as i64, encoder.network.features());
    let mut watch = Reporter { task, place: task.work.join("linear.safetensors"), reported: Instant::now() };
    let mut state = match watch.place.exists() {
        true => State::read(&watch.place, classes, d, device)?,
        false => State::start(classes, d, parameters.seed, device),
    };
    if !info_span!("train").in_scope(|| linear::train(backbone, &source, &training, &mut state, &mut watch))? {
        return Err(Stopped.into());
    }
    task.pulse.rest();
    let (resize, crop) = (parameters.resize as usize, parameters.size as usize);
    let centre = Loader::new(&test, reading(Transform::Centre { resize, crop, filter: Filter::Bilinear }, false))?
        .in_turn(turn(task))
        .in_memory(transfer::memory(device));
    let width = classes.min(5);
    let answer = || linear::answer(backbone, &state, &centre, width, &mut |_| !task.stopping());
    let answered = info_span!("evaluate").in_scope(answer)?;
    let Some((labels, likeliest)) = answered else { return Err(Stopped.into()) };
    if task.member.number > 0 {
        return Ok(());
    }
    let figures = if classes > 5 { vec![Figure::Top1, Figure::Top5] } else { vec![Figure::Top1] };
    let predictions = Predictions {
        evaluation: LinearEval::NAME.into(),
        split: "test".into(),
        images: Some(images_digest(task, "test")?),
        classes: test.classes,
        figures,
        answers: Answers::Classes { labels, likeliest },
    };
    state.classifier().write(&task.output("classifier.safetensors"))?;
    predictions::write(&predictions, &task.output("predictions.safetensors"))?;
    let mut metrics = predictions.metrics();
    metrics.push(Metric::new("loss", "train", state.loss));
    task.metrics(&metrics)
}

/// The training crop: random area and position, and a flip.
fn crop(parameters: &LinearEval) -> View {
    let crop = Crop { size: parameters.size, scale: parameters.scale };
    View { crop, operations: vec![Operation::Flip(Flip { p: 0.5 })] }
}

struct Reporter<'t> {
    task: &'t Task,
    place: PathBuf,
    reported: Instant,
}

impl Watch for Reporter<'_> {
    fn step(&mut self, done: u64, total: u64, loss: f64) -> bool {
        if done < total {
            self.task.pulse.begin("step", done + 1);
        }
        if self.task.member.number == 0 && self.reported.elapsed() > Duration::from_millis(200) {
            self.reported = Instant::now();
            let note = if loss.is_nan() { String::new() } else { format!("loss {loss:.4}") };
            self.task.report(&Progress { done, total, unit: "steps".into(), note });
        }
        !self.task.stopping()
    }

    fn keep(&mut self, state: &State) -> Result<()> {
        self.task.pulse.rest();
        match self.task.member.number {
            0 => state.write(&self.place),
            _ => Ok(()),
        }
    }
}
