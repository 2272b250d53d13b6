//! Batches of views, made by any number of threads in an order that does not depend on them.
//!
//! A thread of its own goes through the epoch batch by batch; the images of a batch are spread over a pool. A few
//! finished batches wait for the consumer, then production pauses: memory is bounded, and the consumer's thread does
//! none of the work.

use super::{
    augment::{Augmenter, Drawn},
    batch::{Batch, Batches, Pixels, Source},
    dataset::Dataset,
    decode::Decoder,
    index::Image,
    raster::Raster,
};
use crate::{
    rng::Rng,
    spec::kind::{Filter, View},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use rayon::prelude::*;
use std::{
    cell::RefCell,
    fs::File,
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// Finished batches that wait for the consumer.
const PREFETCH: usize = 2;

/// How images are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What becomes of an image.
    pub transform: Transform,
    /// Images a batch.
    pub batch: usize,
    /// Whether every epoch has its own random order; else it is that of the index.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// Seed of order and views.
    pub seed: u64,
    /// Threads that decode and augment. No influence on the result.
    pub threads: usize,
}

/// What becomes of an image.
#[derive(Clone, Debug)]
pub enum Transform {
    /// Random views, each of its own size.
    Views(Vec<View>),
    /// One view without randomness.
    Centre {
        /// The short side is resized to this many pixels.
        resize: usize,
        /// Side of the centre crop, pixels.
        crop: usize,
        /// How it is resized.
        filter: Filter,
    },
}

impl Transform {
    /// Sides of the views, pixels.
    fn sides(&self) -> Vec<usize> {
        match self {
            Transform::Views(views) => views.iter().map(|view| view.size as usize).collect(),
            Transform::Centre { crop, .. } => vec![*crop],
        }
    }
}

/// Reads a data set as batches.
pub struct Loader {
    shared: Arc<Shared>,
}

/// What the threads see.
struct Shared {
    dataset: Dataset,
    /// The samples that are read, in order.
    samples: Arc<[u32]>,
    reading: Reading,
    pool: Arc<rayon::ThreadPool>,
}

impl Loader {
    /// A loader of all images. Errors: a batch, a view or a thread count of 0, a crop larger than the resized image, or
    /// no threads to be had.
    pub fn new(dataset: &Dataset, reading: Reading) -> Result<Loader> {
        ensure!(reading.batch > 0, "a batch of 0 images; give at least 1");
        ensure!(reading.threads > 0, "0 loader threads; give at least 1");
        let sides = reading.transform.sides();
        ensure!(!sides.is_empty() && !sides.contains(&0), "view sizes {sides:?}; give at least one, none of 0 pixels");
        if let Transform::Centre { resize, crop, .. } = reading.transform {
            ensure!(resize >= crop, "a crop of {crop} pixels from images resized to {resize}; give at least {crop}");
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(reading.threads)
            .thread_name(|i| format!("loader {i}"))
            .build()
            .with_context(|| format!("cannot start {} loader threads", reading.threads))?;
        let samples = (0..u32::try_from(dataset.images.len())?).collect();
        Ok(Loader { shared: Arc::new(Shared { dataset: dataset.clone(), samples, reading, pool: Arc::new(pool) }) })
    }

    /// The same restricted to some samples, in the order given (before any shuffling). What is drawn for a sample stays
    /// what it was. Errors: a sample number that the data set lacks.
    pub fn subset(&self, samples: &[u32]) -> Result<Loader> {
        let Shared { dataset, reading, pool, .. } = &*self.shared;
        let count = dataset.images.len();
        if let Some(wrong) = samples.iter().find(|&&s| s as usize >= count) {
            return Err(anyhow!("sample {wrong} of a data set of {count}"));
        }
        let (dataset, reading, pool) = (dataset.clone(), reading.clone(), pool.clone());
        Ok(Loader { shared: Arc::new(Shared { dataset, samples: samples.into(), reading, pool }) })
    }

    /// Images in an epoch, those of a last batch that is left out not counted.
    pub fn images(&self) -> u64 {
        let Shared { samples, reading, .. } = &*self.shared;
        let full = if reading.drop_last { samples.len() / reading.batch * reading.batch } else { samples.len() };
        full as u64
    }
}

impl Source for Loader {
    fn batches(&self) -> u64 {
        self.images().div_ceil(self.shared.reading.batch as u64)
    }

    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>> {
        let (sender, receiver) = sync_channel(PREFETCH);
        let (shared, count) = (self.shared.clone(), self.batches());
        let cancelled = Arc::new(AtomicBool::new(false));
        let (flag, left) = (cancelled.clone(), count.saturating_sub(first));
        let work = move || shared.produce(epoch, first..count, &flag, &sender);
        let thread =
            std::thread::Builder::new().name("loader".into()).spawn(work).context("cannot start the loader")?;
        Ok(Box::new(Running { receiver: Some(receiver), thread: Some(thread), cancelled, left }))
    }
}

/// An epoch being read.
struct Running {
    receiver: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    cancelled: Arc<AtomicBool>,
    left: u64,
}

impl Iterator for Running {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.left == 0 {
            return None;
        }
        // The thread ends early only after an error or a panic; silence would be taken for the end of the epoch.
        let batch = self.receiver.as_ref()?.recv().unwrap_or_else(|_| Err(anyhow!("the loader's thread has died")));
        self.left = if batch.is_err() { 0 } else { self.left - 1 };
        Some(batch)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.receiver = None; // wakes a thread that waits for room
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic was told by `next`
        }
    }
}

impl Shared {
    fn produce(&self, epoch: u64, numbers: std::ops::Range<u64>, stop: &AtomicBool, to: &SyncSender<Result<Batch>>) {
        let order = self.order(epoch);
        for number in numbers {
            let start = number as usize * self.reading.batch;
            let samples = &order[start..order.len().min(start + self.reading.batch)];
            let batch = self.batch(epoch, samples, stop);
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let failed = batch.is_err();
            if to.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// The samples of an epoch in the order in which they are read.
    fn order(&self, epoch: u64) -> Vec<u32> {
        let mut order = self.samples.to_vec();
        if self.reading.shuffle {
            Rng::new(self.reading.seed, "order", epoch, 0).shuffle(&mut order);
        }
        order
    }

    fn batch(&self, epoch: u64, samples: &[u32], stop: &AtomicBool) -> Result<Batch> {
        let count = samples.len();
        let blank = |side| Pixels { count, size: (side, side), data: vec![0; count * side * side * 3] };
        let mut views: Vec<Pixels> = self.reading.transform.sides().into_iter().map(blank).collect();
        // One entry an image: where each of its views goes.
        let mut places: Vec<Vec<&mut [u8]>> = (0..count).map(|_| Vec::with_capacity(views.len())).collect();
        for view in &mut views {
            let bytes = view.size.0 * view.size.1 * 3;
            view.data.chunks_exact_mut(bytes).zip(&mut places).for_each(|(chunk, place)| place.push(chunk));
        }
        self.pool.install(|| {
            places.into_par_iter().zip(samples).with_max_len(1).try_for_each(|(place, &sample)| {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                WORKER.with_borrow_mut(|worker| worker.views(self, epoch, sample, place))
            })
        })?;
        let labels = samples.iter().map(|&s| i64::from(self.dataset.images[s as usize].label)).collect();
        Ok(Batch { views, labels, samples: samples.to_vec() })
    }
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

/// A thread's memory, kept from image to image.
#[derive(Default)]
struct Worker {
    file: Vec<u8>,
    decoder: Decoder,
    raster: Raster,
    augmenter: Augmenter,
}

impl Worker {
    /// Writes every view of one image to its place.
    fn views(&mut self, shared: &Shared, epoch: u64, sample: u32, places: Vec<&mut [u8]>) -> Result<()> {
        let image = &shared.dataset.images[sample as usize];
        self.read(shared, image).with_context(|| format!("{}", shared.dataset.root.join(&image.path).display()))?;
        match &shared.reading.transform {
            Transform::Views(views) => {
                for (v, (view, place)) in views.iter().zip(places).enumerate() {
                    let name = u64::from(sample) * views.len() as u64 + v as u64;
                    let mut rng = Rng::new(shared.reading.seed, "view", epoch, name);
                    let drawn = Drawn::new(view, self.raster.width, self.raster.height, &mut rng);
                    self.augmenter.apply(&drawn, &self.raster, place);
                }
            }
            Transform::Centre { resize, crop, filter } => {
                let one = places.into_iter().next().expect("a centre crop is one view");
                self.augmenter.centre(&self.raster, *resize, *crop, *filter, one);
            }
        }
        Ok(())
    }

    fn read(&mut self, shared: &Shared, image: &Image) -> Result<()> {
        self.file.clear();
        let mut file = File::open(shared.dataset.root.join(&image.path))?;
        self.file.reserve(image.bytes as usize + 1);
        file.read_to_end(&mut self.file)?;
        let (now, then) = (self.file.len() as u64, image.bytes);
        ensure!(now == then, "the file has {now} bytes, the index says {then}; has the folder changed? Index it again");
        self.decoder.decode(&self.file, &mut self.raster)
    }
}
