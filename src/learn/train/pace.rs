//! How fast a training goes: images per second and the wait for the loader, one JSON line every few steps. A by-product:
//! two equal runs differ here.

use anyhow::{Context as _, Result};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// How fast a training went over some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// The last of the steps, counted over all epochs from 1.
    pub step: u64,
    /// Images trained on in a second.
    pub images_per_second: f64,
    /// Share of the time in which the step waited for the loader.
    pub loader_wait: f64,
}

/// Counts, and writes when told to.
pub struct Pace {
    file: File,
    since: Instant,
    waited: Duration,
    images: usize,
}

impl Pace {
    /// Adds to the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            OpenOptions::new().create(true).append(true).open(path)
        };
        let file = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Pace { file, since: Instant::now(), waited: Duration::ZERO, images: 0 })
    }

    /// The loader let us wait.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// So many images were trained on.
    pub fn trained(&mut self, images: usize) {
        self.images += images;
    }

    /// Writes the speed since the last time, as of step `step`, and gives it.
    pub fn write(&mut self, step: u64) -> Result<Speed> {
        let seconds = self.since.elapsed().as_secs_f64();
        let speed = Speed {
            step,
            images_per_second: self.images as f64 / seconds,
            loader_wait: self.waited.as_secs_f64() / seconds,
        };
        writeln!(self.file, "{}", serde_json::to_string(&speed)?).context("cannot write the pace")?;
        (self.since, self.waited, self.images) = (Instant::now(), Duration::ZERO, 0);
        Ok(speed)
    }
}
