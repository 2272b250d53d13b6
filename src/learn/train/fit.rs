//! The training loop: epochs, checkpoints, the curve, and stopping on request. Independent of stages and methods: the
//! steps are a [`Method`]'s, and progress is reported to a [`Watch`].

use super::{
    checkpoint::{Checkpoints, Position},
    collective,
    curve::{Curve, Pending, Row},
    digests::{self, Digests},
    method::{At, Method, StepOutput},
    pace::{Pace, Speed},
};
use crate::{
    model::Encoder,
    out_of_memory,
    transfer::{Arriving, Transfer, Views},
};
use anyhow::{Context as _, Result, bail, ensure};
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

/// Observes the loop and may stop it. Of several processes, only the first calls more than `stopping` and `working`.
pub trait Watch {
    /// Whether to write a checkpoint and stop. Several processes stop together, if any of them is to.
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
        /// The whole curve. `None` in all processes but the first.
        curve: Option<Curve>,
    },
    /// Stopped on request, after writing a checkpoint.
    Stopped,
}

/// Number of steps whose metrics are read from the device together.
const READ_EVERY: usize = 16;

/// Steps after which several processes compare their tensors: rare enough to cost nothing.
const COMPARED: u64 = 100;

/// Takes the steps of `method` over `source`, from the newest checkpoint in `place.work` if there is one, else from its
/// initial state. The result has the same bytes however often it is stopped or killed and resumed.
///
/// Several processes that train together all call this, with the same arguments but for the images of `source`. The first of
/// them writes all files.
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
    collective::here().ensure_together(position.done)?;
    let steps = source.batches().min(plan.steps);
    ensure!(steps > 0, "there are fewer images than one batch needs; give a smaller `batch`");
    let records = (collective::here().rank() == 0).then(|| Records::open(place, position)).transpose()?;
    Run { model, plan, method, source, place, checkpoints, steps, position, records }.all(watch)
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
    /// Of several processes, the first has them.
    records: Option<Records>,
}

/// What is written during a training, besides checkpoints.
struct Records {
    curve: Curve,
    pace: Pace,
    digests: Option<Digests>,
    /// When the last checkpoint was written.
    saved: Instant,
}

impl Records {
    fn open(place: &Place, position: Position) -> Result<Self> {
        let curve = Curve::open(&place.work.join("curve.jsonl"), position.curve)?;
        let pace = Pace::open(&place.byproducts.join("pace.jsonl"))?;
        let digests = place.digests.as_deref().map(|path| Digests::open(path, position.done)).transpose()?;
        Ok(Records { curve, pace, digests, saved: Instant::now() })
    }
}

impl Run<'_> {
    fn all(mut self, watch: &mut dyn Watch) -> Result<End> {
        while self.position.epoch < self.plan.epochs {
            if !self.epoch(watch)? {
                return Ok(End::Stopped);
            }
        }
        self.method.finish();
        Ok(End::Finished { method: self.method, curve: self.records.map(|records| records.curve) })
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
            self.waited(waiting.elapsed());
            let output = self.step(views)?;
            self.keep(output, labels.len(), &mut pending)?;
            self.position.step += 1;
            self.position.done += 1;
            self.ensure_equal()?;
            let last = step + 1 == self.steps;
            let halt = collective::here().any(watch.stopping())?;
            if !halt {
                let waiting = Instant::now();
                batches.look_ahead();
                self.waited(waiting.elapsed());
            }
            let due = halt || self.is_due();
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

    /// Every [`COMPARED`] steps, an error if another process has other tensors than the first, which only a fault of the machine
    /// or of this program can cause.
    fn ensure_equal(&self) -> Result<()> {
        let Position { done, .. } = self.position;
        if collective::here().size() == 1 || !done.is_multiple_of(COMPARED) {
            return Ok(());
        }
        let other = collective::here().differing(digests::of_all(&self.method.changed())?)?;
        let Some(process) = other else { return Ok(()) };
        bail!(
            "process {process} has other weights than process 0 after step {done}, through a fault of the machine or of this program; \
             checkpoints of steps after {} in {} may have them too: remove those before you resume",
            done - COMPARED,
            self.place.work.display()
        )
    }

    /// Adds time spent waiting for the loader.
    fn waited(&mut self, time: Duration) {
        if let Some(records) = &mut self.records {
            records.pace.waited(time);
        }
    }

    /// Whether it is time for a checkpoint.
    fn is_due(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.saved.elapsed() >= self.place.every)
    }

    /// Keeps the metrics and digests of a step on so many images of this process, and drops the rest of its output.
    fn keep(&mut self, output: StepOutput, images: usize, pending: &mut Pending) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
        if let Some(digests) = &mut records.digests {
            digests.write(self.position.done + 1, &output, &self.method.changed())?;
        }
        records.pace.trained(images * collective::here().size());
        pending.push(&output, self.position);
        Ok(())
    }

    /// Waits for the device and reports the metrics. After the last step of an epoch, the position moves to the next
    /// epoch.
    fn read(&mut self, pending: &mut Pending, last: bool, watch: &mut dyn Watch) -> Result<()> {
        self.record(pending, last, watch)?;
        if last {
            self.position.epoch += 1;
            self.position.step = 0;
        }
        Ok(())
    }

    fn record(&mut self, pending: &mut Pending, last: bool, watch: &mut dyn Watch) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
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
        }
        records.curve.append(&rows)?;
        let speed = records.pace.write(self.position.done)?;
        watch.progress(self.steps * self.plan.epochs, &rows, speed)
    }

    #[tracing::instrument(name = "checkpoint", skip_all, fields(step = self.position.done))]
    fn save(&mut self) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
        self.position.curve = records.curve.sync()?;
        self.checkpoints.save(self.model, self.position, &self.method.changed())?;
        records.saved = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
