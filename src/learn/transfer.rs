//! Batches on their way from the loader to the device.
//!
//! A GPU is sent one batch ahead: while its kernels compute with a batch, the next is copied beside them. The loader writes
//! into memory that the GPU copies from, so the thread that launches kernels copies nothing itself.

use crate::{
    bridge::{self, Sent},
    model::{self, pixels},
};
use anyhow::{Context as _, Result};
use caco_data::{
    batch::{Batch, Batches, Pixels},
    memory::Bytes,
};
use std::iter::Fuse;
use tch::{Device, Tensor};

/// The memory that a loader should write into for `device`.
pub fn memory(device: Device) -> fn(usize) -> Bytes {
    match device {
        // Without enough of that memory, training is slower and not impossible.
        Device::Cuda(_) => |count| bridge::pinned(count).unwrap_or_else(|_| Bytes::zeros(count)),
        _ => Bytes::zeros,
    }
}

/// The batches of an epoch, each with its first views.
pub struct Transfer<'a> {
    batches: Fuse<Batches<'a>>,
    views: usize,
    device: Device,
    ahead: Option<Result<Arriving>>,
}

impl<'a> Transfer<'a> {
    /// Passes on at most `views` views of each batch.
    pub fn new(batches: Batches<'a>, views: usize, device: Device) -> Self {
        Transfer { batches: batches.fuse(), views, device, ahead: None }
    }

    /// Waits for the next batch and starts to copy it, if the device is a GPU. To be called when the work with the last
    /// batch has been launched, and before its results are waited for.
    pub fn look_ahead(&mut self) {
        if self.device != Device::Cpu && self.ahead.is_none() {
            self.ahead = self.send();
        }
    }

    fn send(&mut self) -> Option<Result<Arriving>> {
        let batch = self.batches.next()?;
        Some(batch.and_then(|batch| Arriving::new(batch, self.views, self.device)))
    }
}

impl Iterator for Transfer<'_> {
    type Item = Result<Arriving>;

    fn next(&mut self) -> Option<Result<Arriving>> {
        self.ahead.take().or_else(|| self.send())
    }
}

/// A batch that is on the device, or on the way.
pub struct Arriving {
    /// Class numbers, one per image.
    pub labels: Vec<i64>,
    /// The views.
    pub views: Views,
}

impl Arriving {
    fn new(batch: Batch, views: usize, device: Device) -> Result<Self> {
        let view = |pixels| match device {
            Device::Cuda(number) => pixels::send(&pixels, number).map(View::Sent),
            _ => Ok(View::Here(pixels)),
        };
        let views = batch.views.into_iter().take(views).map(view).collect::<Result<_>>()?;
        Ok(Arriving { labels: batch.labels, views: Views(views) })
    }
}

/// Views of the images of a batch.
pub struct Views(Vec<View>);

enum View {
    Here(Pixels),
    Sent(Sent),
}

impl Views {
    /// The number of views.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The views as the input of a network, on the device. See [`model::normalise`].
    pub fn normalised(self) -> Result<Vec<Tensor>> {
        let normalised = |view| match view {
            View::Here(pixels) => Ok(model::normalise(&pixels, Device::Cpu)),
            View::Sent(sent) => Ok(pixels::normalise_bytes(&sent.received()?)),
        };
        self.0.into_iter().map(normalised).collect()
    }

    /// The first view; see [`normalised`](Self::normalised).
    pub fn first(self) -> Result<Tensor> {
        self.normalised()?.into_iter().next().context("a batch has no views")
    }
}
