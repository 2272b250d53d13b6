//! Batches that a loader passes to training and evaluation: plain bytes, no tensors.

use super::memory::Bytes;
use anyhow::Result;

/// Some images, each as the same number of views.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// One entry per view.
    pub views: Vec<Pixels>,
    /// Class numbers, one per image.
    pub labels: Vec<i64>,
    /// The images' numbers in the index.
    pub samples: Vec<u32>,
}

/// The same view of every image of a batch: N × height × width × 3 bytes, RGB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pixels {
    /// N.
    pub count: usize,
    /// Height and width, in pixels.
    pub size: (usize, usize),
    /// The bytes.
    pub data: Bytes,
}

/// A stream of batches.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Batch>> + 'a>;

/// Anything that yields the batches of an epoch.
pub trait Source {
    /// Batches in an epoch.
    fn batches(&self) -> u64;
    /// The batches of `epoch` starting at number `first`. The same arguments always give the same bytes, in any order
    /// of calls.
    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>>;
}
