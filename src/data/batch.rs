//! What a loader hands to training and evaluation: plain bytes, no tensor.

use anyhow::Result;

/// Some images, each as the same number of views.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// One entry a view.
    pub views: Vec<Pixels>,
    /// Class numbers, one an image.
    pub labels: Vec<i64>,
    /// Which images of the index these are.
    pub samples: Vec<u32>,
}

/// The same view of every image of a batch: N × height × width × 3 bytes, RGB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pixels {
    /// N.
    pub count: usize,
    /// Height and width, pixels.
    pub size: (usize, usize),
    /// The bytes.
    pub data: Vec<u8>,
}

/// A stream of batches.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Batch>> + 'a>;

/// Anything that yields the batches of an epoch.
pub trait Source {
    /// Batches in an epoch.
    fn batches(&self) -> u64;
    /// The batches of `epoch` from number `first` on. The same arguments give the same bytes, however often and in
    /// whatever order they are asked for.
    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>>;
}
