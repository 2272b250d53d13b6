//! The training loop: epochs, checkpoints, the curve, and stopping on request. Independent of stages and methods: the
//! steps are a [`Method`]'s, and progress is reported to a [`Watch`].

use super::{
    checkpoint::{Checkpoints, Position},
    curve::{Curve, Pending, Row},
    digests::Digests,
    method::{At, Method, StepOutput},
    pace::{Pace, Speed},
};
use crate::{
    model::Encoder,
    out_of_memory,
    transfer::{Arriving, Transfer, Views},
};
use anyhow::{Context as _, Result, ensure};
use caco_data::batch::Source;
use caco_kinds::{Collapse, InitBank, Model, Pretrain};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tch::Device;

/// How long a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Number of epochs.
    pub epochs: u64,
    /// The most steps of an epoch; fewer if there are fewer batches.
    pub steps: u64,
    /// Number of views of a batch.
    pub views: usize,
    /// What to do after a collapse.
    pub collapse: Collapse,
}

impl From<&Pretrain> for Plan {
    fn from(stage: &Pretrain) -> Self {
        let views = stage.views.list().len();
        Plan { epochs: stage.epochs.into(), steps: u64::MAX, views, collapse: stage.collapse }
    }
}

impl From<&InitBank> for Plan {
    /// As many steps as fill the bank, or all batches: columns that one pass cannot fill stay random.
    fn from(stage: &InitBank) -> Self {
        let steps = stage.bank_size.div_ceil(stage.batch).into();
        Plan { epochs: 1, steps, views: 2, collapse: Collapse::Stop }
    }
}

/// Observes the loop and may stop it.
pub trait Watch {
    /// Whether to write a checkpoint and stop.
    fn stopping(&self) -> bool;
    /// Called when a step (numbered from 1 over all epochs) begins, or with `None` when other work follows.
    fn working(&self, step: Option<u64>);
    /// Called with the total number of steps, and the metrics and speed of those since the last call: at least one.
    fn progress(&mut self, total: u64, rows: &[Row], speed: Speed) -> Result<()>;
    /// Called with the encoder after an epoch (counted from 0); may return a kNN accuracy for the curve. Does not
    /// affect training.
    fn epoch(&mut self, epoch: u64, encoder: &Encoder) -> Result<Option<f64>>;
}

/// Where a training runs, and how often it writes checkpoints.
#[derive(Clone, Debug)]
pub struct Place {
    /// Folder for checkpoints and the curve; survives a crash.
    pub work: PathBuf,
    /// Folder for speeds and waiting times.
    pub byproducts: PathBuf,
    /// Time between checkpoints. It affects only when they are written, never the result.
    pub every: Duration,
    /// The device of the tensors.
    pub device: Device,
    /// The file for digests of every step, if they are to be kept.
    pub digests: Option<PathBuf>,
}

/// The outcome of a loop.
pub enum End {
    /// All steps are done.
    Finished {
        /// The method, with its final state.
        method: Box<dyn Method>,
        /// The whole curve.
        curve: Curve,
    },
    /// Stopped on request, after writing a checkpoint.
    Stopped,
}

/// Number of steps whose metrics are read from the device together.
const READ_EVERY: usize = 16;

/// Takes the steps of `method` over `source`, from the newest checkpoint in `place.work` if there is one, else from its
/// initial state. The result has the same bytes however often it is stopped or killed and resumed.
///
/// Returns an error if a metric is not finite or the encoder has collapsed where that is not allowed (the error names
/// the step and the last good checkpoint), or if source, checkpoint and method do not match.
pub fn fit(
    model: &Model,
    plan: Plan,
    method: Box<dyn Method>,
    source: &dyn Source,
    place: &Place,
    watch: &mut dyn Watch,
) -> Result<End> {
    let checkpoints = Checkpoints::of(&place.work);
    let position = checkpoints.resume(model, &*method)?.unwrap_or_default();
    if position != Position::default() {
        tracing::info!("resuming at epoch {}, step {}", position.epoch, position.done);
    }
    let steps = source.batches().min(plan.steps);
    ensure!(steps > 0, "there are fewer images than one batch needs; give a smaller `batch`");
    let curve = Curve::open(&place.work.join("curve.jsonl"), position.curve)?;
    let pace = Pace::open(&place.byproducts.join("pace.jsonl"))?;
    let digests = place.digests.as_deref().map(|path| Digests::open(path, position.done)).transpose()?;
    let run = Run {
        model,
        plan,
        method,
        source,
        place,
        checkpoints,
        steps,
        position,
        curve,
        pace,
        digests,
        saved: Instant::now(),
    };
    run.all(watch)
}

struct Run<'a> {
    model: &'a Model,
    plan: Plan,
    method: Box<dyn Method>,
    source: &'a dyn Source,
    place: &'a Place,
    checkpoints: Checkpoints,
    /// Steps per epoch.
    steps: u64,
    position: Position,
    curve: Curve,
    pace: Pace,
    digests: Option<Digests>,
    saved: Instant,
}

impl Run<'_> {
    fn all(mut self, watch: &mut dyn Watch) -> Result<End> {
        while self.position.epoch < self.plan.epochs {
            if !self.epoch(watch)? {
                return Ok(End::Stopped);
            }
        }
        self.method.finish();
        Ok(End::Finished { method: self.method, curve: self.curve })
    }

    /// Runs the rest of the epoch; returns false if stopped.
    #[tracing::instrument(skip_all, fields(epoch = self.position.epoch))]
    fn epoch(&mut self, watch: &mut dyn Watch) -> Result<bool> {
        let Position { epoch, step: first, .. } = self.position;
        let source = self.source;
        let batches = source.epoch(epoch, first)?.take((self.steps - first) as usize);
        let mut batches = Transfer::new(Box::new(batches), self.plan.views, self.place.device);
        let mut pending = Pending::default();
        for step in first..self.steps {
            watch.working(Some(self.position.done + 1));
            let waiting = Instant::now();
            let next = || batches.next().with_context(|| format!("epoch {epoch} ends before batch {step}"))?;
            let Arriving { labels, views } = out_of_memory::caught(out_of_memory::TRAINING, next)?;
            self.pace.waited(waiting.elapsed());
            let output = self.step(views)?;
            self.keep(output, &mut pending)?;
            self.pace.trained(labels.len());
            self.position.step += 1;
            self.position.done += 1;
            let last = step + 1 == self.steps;
            let halt = watch.stopping();
            if !halt {
                let waiting = Instant::now();
                batches.look_ahead();
                self.pace.waited(waiting.elapsed());
            }
            let due = halt || self.saved.elapsed() >= self.place.every;
            if last || due || pending.len() >= READ_EVERY {
                self.read(&mut pending, last, watch)?;
            }
            if due {
                watch.working(None);
                self.save()?;
            }
            if halt {
                return Ok(false);
            }
        }
        watch.working(None);
        Ok(true)
    }

    fn step(&mut self, views: Views) -> Result<StepOutput> {
        let wanted = self.plan.views;
        ensure!(views.count() == wanted, "a batch has {} views, {wanted} are needed", views.count());
        let at = At { epoch: self.position.epoch, number: self.position.done };
        let step = || self.method.step(&views.normalised()?, at, &mut |_| ());
        out_of_memory::caught(out_of_memory::TRAINING, step)
            .with_context(|| format!("step {} (epoch {})", self.position.done + 1, self.position.epoch))
    }

    /// Keeps the metrics and digests of a step, and drops the rest of its output.
    fn keep(&mut self, output: StepOutput, pending: &mut Pending) -> Result<()> {
        if let Some(digests) = &mut self.digests {
            digests.write(self.position.done + 1, &output, &self.method.changed())?;
        }
        pending.push(&output, self.position);
        Ok(())
    }

    /// Waits for the device and reports the metrics. After the last step of an epoch, the position moves to the next
    /// epoch.
    fn read(&mut self, pending: &mut Pending, last: bool, watch: &mut dyn Watch) -> Result<()> {
        let mut rows = pending.read()?;
        for row in &rows {
            row.check(self.plan.collapse)
                .with_context(|| format!("last good checkpoint: {}", self.checkpoints.last_good()))?;
        }
        let newest = rows.last_mut().context("a step was just taken")?;
        if last {
            let encoder = Encoder { model: self.model.clone(), network: self.method.encoder().share() };
            watch.working(None);
            newest.knn = watch.epoch(self.position.epoch, &encoder)?;
            self.position.epoch += 1;
            self.position.step = 0;
        }
        self.curve.append(&rows)?;
        let speed = self.pace.write(self.position.done)?;
        watch.progress(self.steps * self.plan.epochs, &rows, speed)
    }

    #[tracing::instrument(name = "checkpoint", skip_all, fields(step = self.position.done))]
    fn save(&mut self) -> Result<()> {
        self.position.curve = self.curve.sync()?;
        self.checkpoints.save(self.model, self.position, &self.method.changed())?;
        self.saved = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
