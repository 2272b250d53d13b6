//! Kind `features`: features of a frozen encoder on every image of an index.

use super::{counted, dataset, images_digest};
use crate::{
    data::{Loader, Reading, Transform},
    device,
    eval::features::{Extraction, Set, extract},
    job::{Stopped, Task},
    model::Encoder,
    spec::kind::Features,
};
use anyhow::Result;

/// Writes `features.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Features = task.parameters()?;
    let device = device::open(&task.job.device, task.job.threads)?;
    let encoder = Encoder::load(task.input("encoder")?, device)?;
    let set = dataset(task, "index")?;
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
        threads: task.job.threads,
    };
    let extraction = Extraction {
        encoder: &encoder,
        source: &Loader::new(&set, reading)?,
        batch: parameters.batch.into(),
        labels: &set.labels(),
        set: &Set { classes: set.classes.clone(), images: images_digest(task, "index")? },
        device,
        precision: parameters.precision,
    };
    let told = counted(task, "images");
    let total = set.images.len() as u64;
    let partial = task.job.work.join("features.partial");
    let finished = extract(&extraction, &partial, &task.output("features.safetensors"), &mut |done| {
        told(done, total);
        !task.stopping()
    })?;
    if finished { Ok(()) } else { Err(Stopped.into()) }
}
