//! Loads batches of views from image files with any number of threads; order and bytes do not depend on that number.
//!
//! Work is handed out image by image. A batch is allocated when its first image is started; at most [`AHEAD`] batches
//! are started before the consumer takes the oldest, which bounds memory and is the only thing that makes threads wait.

use super::{
    batch::{Batch, Batches, Pixels, Source},
    dataset::Dataset,
    memory::Bytes,
    reader::Reader,
};
use anyhow::{Result, anyhow, ensure};
use caco_kinds::Decode;
use caco_measure::rng::Rng;
use caco_views::{Augmenter, Drawn, Filter, Raster, VIEW, View};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
};

/// Batches that may be started before the consumer takes the oldest.
const AHEAD: usize = 3;

/// The transform applied to each image.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// Random views.
    Views(Vec<View>),
    /// The short side is resized to `resize`, then the central `crop` × `crop` is taken.
    Centre {
        /// Short side, in pixels.
        resize: usize,
        /// Side of the crop, in pixels.
        crop: usize,
        /// Resampling filter.
        filter: Filter,
    },
}

impl Transform {
    fn sizes(&self) -> Vec<usize> {
        match self {
            Transform::Views(views) => views.iter().map(View::size).collect(),
            Transform::Centre { crop, .. } => vec![*crop],
        }
    }
}

/// How a data set is read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The transform applied to each image.
    pub transform: Transform,
    /// Images per batch.
    pub batch: usize,
    /// Whether each epoch is shuffled; otherwise images come in the order of the index.
    pub shuffle: bool,
    /// Whether an incomplete last batch is dropped.
    pub drop_last: bool,
    /// Seed of the order and the views.
    pub seed: u64,
    /// Decoding threads.
    pub threads: usize,
}

/// The part of every batch that one of several processes reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the process, from 0.
    pub number: usize,
    /// Number of processes.
    pub of: usize,
    /// Equal pieces of a batch that are used one after the other; the process has a part of each.
    pub pieces: usize,
}

impl Part {
    const WHOLE: Part = Part { number: 0, of: 1, pieces: 1 };

    /// The samples of this part.
    fn of(self, batch: &[u32]) -> Vec<u32> {
        if self.of == 1 {
            return batch.to_vec();
        }
        let pieces = batch.chunks(batch.len() / self.pieces);
        let own = |piece: &[u32]| {
            let length = piece.len() / self.of;
            piece[self.number * length..][..length].to_vec()
        };
        pieces.flat_map(own).collect()
    }
}

/// The batches that one of several processes reads: they take turns, from the batch with which an epoch begins or resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Number of the process, from 0.
    pub number: usize,
    /// Number of processes.
    pub of: usize,
}

/// Reads a data set in batches.
pub struct Loader {
    set: Arc<Dataset>,
    reading: Reading,
    decode: Decode,
    purpose: &'static str,
    part: Part,
    turn: Turn,
    memory: fn(usize) -> Bytes,
}

impl Loader {
    /// Creates a loader; fails if an epoch would have no batches.
    pub fn new(set: &Dataset, reading: Reading) -> Result<Loader> {
        ensure!(reading.batch > 0 && reading.threads > 0, "a loader needs a batch and threads of at least 1");
        let set = Arc::new(set.clone());
        let (decode, part, turn) = (Decode::Full, Part::WHOLE, Turn { number: 0, of: 1 });
        let loader = Loader { set, reading, decode, purpose: VIEW, part, turn, memory: Bytes::zeros };
        let (images, batch) = (loader.set.images.len(), loader.reading.batch);
        ensure!(
            loader.batches() > 0,
            "{images} images do not fill one batch of {batch}; lower `batch` or use more images"
        );
        Ok(loader)
    }

    /// Sets how JPEG files are decoded. This only affects views.
    pub fn decoding(self, decode: Decode) -> Loader {
        Loader { decode, ..self }
    }

    /// Sets the purpose for which random views are drawn. For two purposes the same seed draws different views.
    pub fn drawing(self, purpose: &'static str) -> Loader {
        Loader { purpose, ..self }
    }

    /// Reads only this part of every batch. Batches must be complete, and be divided by it without a rest.
    pub fn of_part(self, part: Part) -> Loader {
        Loader { part, ..self }
    }

    /// Reads only the batches of one of several processes.
    pub fn in_turn(self, turn: Turn) -> Loader {
        Loader { turn, ..self }
    }

    /// Sets where views are written: `memory` returns so many bytes, whose content does not matter.
    pub fn in_memory(self, memory: fn(usize) -> Bytes) -> Loader {
        Loader { memory, ..self }
    }

    /// The samples of an epoch, in order.
    fn order(&self, epoch: u64) -> Vec<u32> {
        let n = self.set.images.len();
        if self.reading.shuffle {
            Rng::new(self.reading.seed, "order", epoch, 0).permutation(n)
        } else {
            (0..n as u32).collect()
        }
    }
}

impl Source for Loader {
    fn batches(&self) -> u64 {
        let (n, batch) = (self.set.images.len(), self.reading.batch);
        (if self.reading.drop_last { n / batch } else { n.div_ceil(batch) }) as u64
    }

    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>> {
        let order = self.order(epoch);
        let chunks: Vec<Vec<u32>> = order
            .chunks(self.reading.batch)
            .take(self.batches() as usize)
            .skip(first as usize + self.turn.number)
            .step_by(self.turn.of)
            .map(|batch| self.part.of(batch))
            .collect();
        Ok(Box::new(Epoch::start(self, epoch, chunks)))
    }
}

/// An epoch in progress. Dropping it stops the threads.
struct Epoch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    left: usize,
}

struct Shared {
    set: Arc<Dataset>,
    transform: Transform,
    decode: Decode,
    purpose: &'static str,
    memory: fn(usize) -> Bytes,
    seed: u64,
    epoch: u64,
    chunks: Vec<Vec<u32>>,
    desk: Mutex<Desk>,
    /// A batch is complete, or a thread failed.
    complete: Condvar,
    /// Another batch may be started.
    room: Condvar,
}

/// The next piece of work, and the batches in progress.
#[derive(Default)]
struct Desk {
    /// The next image: its batch, and its position in the batch.
    next: (usize, usize),
    /// Batches started and not yet taken, the oldest first.
    begun: VecDeque<Begun>,
    /// Batches taken.
    taken: usize,
    closed: bool,
}

struct Begun {
    views: Vec<Bytes>,
    /// Where each view is written.
    places: Vec<Slot>,
    missing: usize,
    error: Option<anyhow::Error>,
}

/// A range of memory: where a thread writes one view of one image, or that view of the whole batch.
#[derive(Clone, Copy)]
struct Slot(*mut u8, usize);

// SAFETY: threads access only slots of images, each of which is a range of its batch's memory that no other thread accesses.
unsafe impl Send for Slot {}

impl Slot {
    fn of(view: &mut Bytes) -> Slot {
        Slot(view.as_mut_ptr(), view.len())
    }

    /// The slot of image `place` of `count`.
    fn image(self, place: usize, count: usize) -> Slot {
        let length = self.1 / count;
        // SAFETY: the range is inside the view, which is neither moved nor resized, nor accessed in another way, until
        // every image of the batch is handed in.
        Slot(unsafe { self.0.add(place * length) }, length)
    }
}

impl Epoch {
    fn start(loader: &Loader, epoch: u64, chunks: Vec<Vec<u32>>) -> Epoch {
        let (left, reading) = (chunks.len(), &loader.reading);
        let shared = Arc::new(Shared {
            set: loader.set.clone(),
            transform: reading.transform.clone(),
            decode: loader.decode,
            purpose: loader.purpose,
            memory: loader.memory,
            seed: reading.seed,
            epoch,
            chunks,
            desk: Mutex::default(),
            complete: Condvar::new(),
            room: Condvar::new(),
        });
        let spawn = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work())
        };
        Epoch { threads: (0..reading.threads).map(spawn).collect(), shared, left }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let shared = &*self.shared;
        let mut desk = shared.desk.lock().expect("no panic while held");
        let begun = loop {
            match desk.begun.front() {
                Some(oldest) if oldest.missing == 0 => break desk.begun.pop_front().expect("there is an oldest"),
                _ => desk = shared.complete.wait(desk).expect("no panic while held"),
            }
        };
        let samples = shared.chunks[desk.taken].clone();
        desk.taken += 1;
        drop(desk);
        shared.room.notify_all();
        if let Some(error) = begun.error {
            self.left = 0;
            return Some(Err(error));
        }
        let pixels = |(data, size): (Bytes, usize)| Pixels { count: samples.len(), size: (size, size), data };
        let views = begun.views.into_iter().zip(shared.transform.sizes()).map(pixels).collect();
        let labels = samples.iter().map(|s| i64::from(shared.set.images[*s as usize].label)).collect();
        Some(Ok(Batch { views, labels, samples }))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.shared.desk.lock().expect("no panic while held").closed = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let (mut reader, mut augmenter, mut raster) = (Reader::default(), Augmenter::default(), Raster::default());
        while let Some((batch, place, slots)) = self.take_work() {
            let sample = self.chunks[batch][place];
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.make(sample, slots, &mut reader, &mut augmenter, &mut raster)
            }));
            self.hand_in(batch, made.unwrap_or_else(|_| Err(anyhow!("a loader thread panicked on sample {sample}"))));
        }
    }

    /// The next image and where to write its views; waits while too many batches are in progress.
    fn take_work(&self) -> Option<(usize, usize, Vec<Slot>)> {
        let mut desk = self.desk.lock().expect("no panic while held");
        loop {
            let (batch, place) = desk.next;
            if desk.closed || batch >= self.chunks.len() {
                return None;
            }
            if batch - desk.taken < AHEAD {
                let count = self.chunks[batch].len();
                if place == 0 {
                    let view = |size: &usize| (self.memory)(count * size * size * 3);
                    let mut views: Vec<Bytes> = self.transform.sizes().iter().map(view).collect();
                    let places = views.iter_mut().map(Slot::of).collect();
                    desk.begun.push_back(Begun { views, places, missing: count, error: None });
                }
                desk.next = if place + 1 == count { (batch + 1, 0) } else { (batch, place + 1) };
                let at = batch - desk.taken;
                let slots = desk.begun[at].places.iter().map(|view| view.image(place, count)).collect();
                return Some((batch, place, slots));
            }
            desk = self.room.wait(desk).expect("no panic while held");
        }
    }

    fn hand_in(&self, batch: usize, made: Result<()>) {
        let mut desk = self.desk.lock().expect("no panic while held");
        let at = batch - desk.taken;
        let begun = &mut desk.begun[at];
        begun.missing -= 1;
        if let Err(error) = made {
            begun.error.get_or_insert(error);
        }
        if begun.missing == 0 {
            self.complete.notify_one();
        }
    }

    fn make(
        &self,
        sample: u32,
        slots: Vec<Slot>,
        reader: &mut Reader,
        augmenter: &mut Augmenter,
        raster: &mut Raster,
    ) -> Result<()> {
        let image = &self.set.images[sample as usize];
        let drawn = match &self.transform {
            Transform::Views(views) => {
                let size = (image.size.0 as usize, image.size.1 as usize);
                Drawn::of_sample(views, self.purpose, self.seed, self.epoch, sample, size)
            }
            Transform::Centre { .. } => vec![],
        };
        let scale = match self.decode {
            Decode::Full => 1,
            Decode::Scaled => drawn.iter().map(|drawn| drawn.cut.scale()).min().unwrap_or(1),
        };
        let scale = reader.image(&self.set, sample, scale, raster)?;
        // SAFETY: see `Slot`.
        let outs =
            slots.into_iter().map(|Slot(start, length)| unsafe { std::slice::from_raw_parts_mut(start, length) });
        for (view, out) in outs.enumerate() {
            match &self.transform {
                Transform::Views(_) => augmenter.apply(&drawn[view].scaled(scale, raster), raster, out),
                Transform::Centre { resize, crop, filter } => augmenter.centre(raster, *resize, *crop, *filter, out),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use caco_views::Views;
    use std::{fs, path::Path};

    pub fn set(folder: &Path, images: u32) -> Dataset {
        for i in 0..images {
            let path = folder.join(format!("{}/{i:03}.jpg", i % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let pixels: Vec<u8> = (0..40 * 30 * 3).map(|p| (p * (i + 3) % 251) as u8).collect();
            jpeg_encoder::Encoder::new_file(path, 90)
                .unwrap()
                .encode(&pixels, 40, 30, jpeg_encoder::ColorType::Rgb)
                .unwrap();
        }
        crate::index::tests::folder(folder).0
    }

    fn reading(threads: usize) -> Reading {
        let transform = Transform::Views(Views::MultiCrop { size: 24, small: 16, count: 2 }.list());
        Reading { transform, batch: 4, shuffle: true, drop_last: true, seed: 3, threads }
    }

    fn epoch(set: &Dataset, reading: Reading, epoch: u64, first: u64) -> Vec<Batch> {
        Loader::new(set, reading).unwrap().epoch(epoch, first).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn order_and_bytes_are_the_same_for_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let set = set(folder.path(), 23);
        let one = epoch(&set, reading(1), 5, 0);
        assert_eq!(one.len(), 5);
        for threads in [2, 7] {
            let many = epoch(&set, reading(threads), 5, 0);
            for (a, b) in one.iter().zip(&many) {
                assert!(a.samples == b.samples && a.labels == b.labels && a.views == b.views, "{threads} threads");
            }
        }
        let resumed = epoch(&set, reading(2), 5, 3);
        assert_eq!(resumed[0].samples, one[3].samples);
        assert_eq!(resumed[0].views, one[3].views);
        assert_ne!(epoch(&set, reading(1), 6, 0)[0].samples, one[0].samples);
    }

    #[test]
    fn processes_read_neighbouring_images_of_every_piece() {
        let folder = tempfile::tempdir().unwrap();
        let set = set(folder.path(), 24);
        let reading = Reading { batch: 8, ..reading(2) };
        let read = |part| -> Vec<Batch> {
            let loader = Loader::new(&set, reading.clone()).unwrap().of_part(part);
            loader.epoch(1, 1).unwrap().map(Result::unwrap).collect()
        };
        let whole = read(Part::WHOLE);
        for (pieces, places) in [(1, [[0, 1, 2, 3], [4, 5, 6, 7]]), (2, [[0, 1, 4, 5], [2, 3, 6, 7]])] {
            for (number, places) in places.iter().enumerate() {
                let part = read(Part { number, of: 2, pieces });
                assert_eq!(part.len(), whole.len());
                for (part, whole) in part.iter().zip(&whole) {
                    assert_eq!(part.samples, places.map(|place| whole.samples[place]));
                    let image = |batch: &Batch, place: usize| {
                        let view = &batch.views[1];
                        view.data.chunks(view.data.len() / view.count).nth(place).unwrap().to_vec()
                    };
                    assert!((0..4).all(|own| image(part, own) == image(whole, places[own])), "{pieces} {number}");
                }
            }
        }
    }

    #[test]
    fn scaled_decoding_changes_pixels_a_little_and_draws_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..8u32 {
            let path = folder.path().join(format!("a/{i}.jpg"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Smooth pictures: noise has no smaller version.
            let wave = |p: u32, k: u32| (128.0 + 90.0 * (f64::from(p * (i + k)) / 240.0).sin()) as u8;
            let pixel = |p: u32| [wave(p % 320, 1), wave(p / 320, 2), wave(p % 320, 3)];
            let pixels: Vec<u8> = (0..240 * 320).flat_map(pixel).collect();
            jpeg_encoder::Encoder::new_file(path, 95)
                .unwrap()
                .encode(&pixels, 320, 240, jpeg_encoder::ColorType::Rgb)
                .unwrap();
        }
        let set = crate::index::tests::folder(folder.path()).0;
        let crop = serde_json::json!({"Custom": [[{"Crop": {"size": 24, "scale": [0.2, 1.0]}}, {"Flip": {"p": 0.5}}]]});
        let crop: Views = serde_json::from_value(crop).unwrap();
        let reading = |threads| Reading { transform: Transform::Views(crop.list()), ..reading(threads) };
        let first = |loader: Loader| loader.epoch(1, 0).unwrap().next().unwrap().unwrap();
        let full = first(Loader::new(&set, reading(1)).unwrap());
        let scaled = |threads| first(Loader::new(&set, reading(threads)).unwrap().decoding(Decode::Scaled));
        let (one, many) = (scaled(1), scaled(3));
        assert_eq!(one.views, many.views);
        let (a, b) = (&full.views[0].data, &one.views[0].data);
        let mean = a.iter().zip(&**b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
        assert!(mean > 0.0 && mean < 3.0, "{mean}");
    }

    #[test]
    fn every_sample_comes_once_and_the_last_batch_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let set = set(folder.path(), 10);
        let all = epoch(&set, Reading { drop_last: false, ..reading(2) }, 0, 0);
        let mut samples: Vec<u32> = all.iter().flat_map(|b| b.samples.clone()).collect();
        assert_eq!(all.last().unwrap().samples.len(), 2);
        samples.sort();
        assert_eq!(samples, (0..10).collect::<Vec<_>>());
        assert!(Loader::new(&set, Reading { batch: 11, ..reading(1) }).is_err());
    }

    #[test]
    fn a_damaged_file_is_named_and_a_dropped_epoch_ends() {
        let folder = tempfile::tempdir().unwrap();
        let set = set(folder.path(), 12);
        let loader = Loader::new(&set, reading(2)).unwrap();
        let whole = fs::read(set.file(7)).unwrap();
        for bad in [&b"text"[..], &vec![b' '; whole.len()]] {
            fs::write(set.file(7), bad).unwrap();
            let error = loader.epoch(0, 0).unwrap().find_map(Result::err).expect("one image is bad");
            assert!(format!("{error:#}").contains(&set.images[7].path), "{error:#}");
        }
        drop(loader.epoch(1, 0).unwrap());
    }
}
