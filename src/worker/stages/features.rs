//! Kind `features`: features of every image of an index with a frozen encoder.

use super::{
    progress::counted,
    reading::{dataset, images_digest, turn},
};
use crate::{
    task::{Stopped, Task},
    team,
};
use anyhow::Result;
use caco_data::{Dataset, Loader, Reading, Transform};
use caco_kinds::Features;
use caco_learn::{
    device,
    eval::features::{Extraction, Labels, Set, extract},
    model::Encoder,
    transfer,
};

/// Writes `features.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    features_of(task, &dataset(task, "index")?, images_digest(task, "index")?)
}

/// Writes `features.safetensors` for the images of `set`, which `digest` identifies.
#[tracing::instrument(name = "extract", skip_all)]
pub fn features_of(task: &Task, set: &Dataset, digest: String) -> Result<()> {
    let parameters: Features = task.parameters()?;
    let device = device::open(&task.device, task.threads, parameters.determinism)?;
    team::join(&task.member, device)?;
    let encoder = Encoder::load(task.input("encoder")?, device)?;
    let transform = Transform::Centre {
        resize: parameters.resize as usize,
        crop: parameters.crop as usize,
        filter: parameters.filter,
    };
    let reading = Reading {
        transform,
        batch: parameters.batch as usize,
        shuffle: false,
        drop_last: false,
        seed: 0,
        threads: task.threads,
    };
    let labels = set.labels();
    let extraction = Extraction {
        encoder: &encoder,
        source: &Loader::new(set, reading)?.in_turn(turn(task)).in_memory(transfer::memory(device)),
        batch: parameters.batch.into(),
        labels: &labels,
        kept: &set.shown().map_or_else(|| Labels::One(labels.clone()), Labels::Several),
        set: &Set { classes: set.classes.clone(), images: digest },
        device,
        precision: parameters.precision,
    };
    let report = counted(task, "images");
    let total = set.images.len() as u64;
    let partial = task.work.join("features.partial");
    let finished = extract(&extraction, &partial, &task.output("features.safetensors"), &mut |done| {
        if task.member.number == 0 {
            report(done, total);
        }
        !task.stopping()
    })?;
    if finished { Ok(()) } else { Err(Stopped.into()) }
}
