//! The speed of a training: images per second and waiting time for the loader, one JSON line every few steps. A
//! by-product: it differs between otherwise equal runs.

use anyhow::{Context as _, Result};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// The speed of a training over some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// The last of the steps, counted over all epochs from 1.
    pub step: u64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Fraction of the time spent waiting for the loader.
    pub loader_wait: f64,
}

/// Measures the speed and writes it on request.
pub struct Pace {
    file: File,
    since: Instant,
    waited: Duration,
    images: usize,
}

impl Pace {
    /// Appends to the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            OpenOptions::new().create(true).append(true).open(path)
        };
        let file = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Pace { file, since: Instant::now(), waited: Duration::ZERO, images: 0 })
    }

    /// Adds time spent waiting for the loader.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Adds a number of training images.
    pub fn trained(&mut self, images: usize) {
        self.images += images;
    }

    /// Writes and returns the speed since the last call, as of step `step`.
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
