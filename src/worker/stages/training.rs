//! Shared by both training stages: where they write, how they report progress, and how they stop.

use super::tensorboard::Events;
use crate::task::{Stopped, Task};
use anyhow::{Context as _, Result};
use caco_data::batch::Source;
use caco_kinds::Model;
use caco_learn::{
    model::Encoder,
    train::{
        curve::{Curve, Row},
        fit::{self, End, Place, Plan, Watch},
        method::Method,
        pace::Speed,
    },
};
use caco_pipeline::{progress::Progress, step_digests};
use std::time::Duration;
use tch::Device;

/// Called with the encoder after an epoch; may return a kNN accuracy.
pub type Look<'a> = dyn FnMut(u64, &Encoder) -> Result<Option<f64>> + 'a;

/// Environment variable for the seconds between checkpoints; the default is ten minutes.
const EVERY: &str = "CACO_CHECKPOINT_SECONDS";

/// Trains to the end, or to a checkpoint and [`Stopped`]. Of several processes, the first has the curve, and writes the results.
#[tracing::instrument(skip_all)]
pub fn train(
    task: &Task,
    model: &Model,
    plan: Plan,
    method: Box<dyn Method>,
    source: &dyn Source,
    device: Device,
    look: &mut Look,
) -> Result<(Box<dyn Method>, Option<Curve>)> {
    let every = match std::env::var(EVERY) {
        Ok(text) => text.parse().with_context(|| format!("{EVERY} is '{text}'; give seconds"))?,
        Err(_) => 600.0,
    };
    let place = Place {
        work: task.work.clone(),
        byproducts: task.byproducts.clone(),
        every: Duration::try_from_secs_f64(every).with_context(|| format!("{EVERY} is {every}; give seconds"))?,
        device,
        digests: task.step_digests.then(|| task.byproducts.join(step_digests::FILE)),
    };
    let mut reporter = Reporter { task, look, events: Events::into_folder(&task.byproducts.join("tensorboard")) };
    match fit::fit(model, plan, method, source, &place, &mut reporter)? {
        End::Finished { method, curve } => Ok((method, curve)),
        End::Stopped => Err(Stopped.into()),
    }
}

struct Reporter<'a, 'b> {
    task: &'a Task,
    look: &'a mut Look<'b>,
    events: Events,
}

impl Watch for Reporter<'_, '_> {
    fn stopping(&self) -> bool {
        self.task.stopping()
    }

    fn working(&self, step: Option<u64>) {
        match step {
            Some(number) => self.task.pulse.begin("step", number),
            None => self.task.pulse.rest(),
        }
    }

    fn progress(&mut self, total: u64, rows: &[Row], speed: Speed) -> Result<()> {
        let note =
            rows.last().and_then(|row| row.get("loss")).map(|loss| format!("loss {loss:.4}")).unwrap_or_default();
        self.task.report(&Progress { done: speed.step, total, unit: "steps".into(), note });
        self.events.write(rows, speed)
    }

    #[tracing::instrument(name = "monitor", skip(self, encoder))]
    fn epoch(&mut self, epoch: u64, encoder: &Encoder) -> Result<Option<f64>> {
        (self.look)(epoch, encoder)
    }
}
