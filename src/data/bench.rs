//! Measures how fast images are turned into views, and where the time is spent.

use super::{
    batch::Source as _,
    dataset::Dataset,
    format, index,
    loader::{Loader, Reading, Transform},
    reader::Reader,
};
use anyhow::{Result, ensure};
use caco_kinds::{Decode, Format};
use caco_views::{Augmenter, Drawn, Raster, VIEW, View, Views};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Images that are timed operation by operation.
const TIMED: usize = 2000;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// A folder in the ImageFolder layout.
    pub folder: PathBuf,
    /// The views made of each image.
    pub views: Views,
    /// How JPEG files are decoded.
    pub decode: Decode,
    /// Images per batch.
    pub batch: usize,
    /// Loader threads.
    pub threads: usize,
    /// Seconds to measure, after warming up.
    pub seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Images (not views) per second from the loader.
    pub images_per_second: f64,
    /// Number of images measured.
    pub images: u64,
    /// Loader threads.
    pub threads: usize,
    /// Where JPEG files are decoded at a reduced size: the mean difference this makes to the bytes of views.
    pub difference: Option<f64>,
    /// Microseconds that one thread spends per image (all its views), by operation, each finished before the next
    /// begins. The loader is a little faster: there neighbouring operations share passes over memory.
    pub microseconds: BTreeMap<&'static str, f64>,
}

/// Indexes the folder and measures the loader on it.
pub fn measure(setup: &Setup) -> Result<Report> {
    let listing = format::list(Format::ImageFolder, None, &setup.folder)?;
    let (set, unreadable) = index::build(&setup.folder, listing, |_, _| ());
    index::refuse(&unreadable)?;
    loader(&set, &setup.views.list(), setup.decode, setup.batch, setup.threads, Duration::from_secs_f64(setup.seconds))
}

/// Reads `set` as training would, epoch after epoch, for at least `span`; the first epoch, or the first quarter of the
/// span, is warm-up and does not count. Then times single images operation by operation. After the warm-up, files that
/// fit are read from the page cache.
pub fn loader(
    set: &Dataset,
    views: &[View],
    decode: Decode,
    batch: usize,
    threads: usize,
    span: Duration,
) -> Result<Report> {
    let transform = Transform::Views(views.to_vec());
    let reading = Reading { transform, batch, shuffle: true, drop_last: true, seed: 0, threads };
    let difference = difference(set, &reading, decode)?;
    let loader = Loader::new(set, reading)?.decoding(decode);
    let mut epoch = 0;
    read(&loader, span / 4, &mut epoch)?;
    let (images, time) = read(&loader, span, &mut epoch)?;
    let images_per_second = images as f64 / time.as_secs_f64();
    Ok(Report { images_per_second, images, threads, difference, microseconds: operations(set, views)? })
}

/// Reads from the start of `epoch` until `span` is over. Returns the number of images and the time from the first batch
/// to the last.
fn read(loader: &Loader, span: Duration, epoch: &mut u64) -> Result<(u64, Duration)> {
    let mut images = 0;
    let (start, mut end) = (Instant::now(), Instant::now());
    while end - start < span {
        for batch in loader.epoch(*epoch, 0)? {
            images += batch?.labels.len() as u64;
            end = Instant::now();
            if end - start >= span {
                break;
            }
        }
        *epoch += 1;
    }
    ensure!(images > 0, "the loader returned no images");
    Ok((images, end - start))
}

/// The mean difference between the bytes of views and those after full decoding, over a sample of images.
fn difference(set: &Dataset, reading: &Reading, decode: Decode) -> Result<Option<f64>> {
    if decode == Decode::Full {
        return Ok(None);
    }
    let open = |decode| Ok::<_, anyhow::Error>(Loader::new(set, reading.clone())?.decoding(decode));
    let (full, other) = (open(Decode::Full)?, open(decode)?);
    let (mut sum, mut bytes, mut images) = (0u64, 0u64, 0);
    for pair in full.epoch(0, 0)?.zip(other.epoch(0, 0)?) {
        let (a, b) = (pair.0?, pair.1?);
        for (a, b) in a.views.iter().zip(&b.views) {
            sum += a.data.iter().zip(&*b.data).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            bytes += a.data.len() as u64;
        }
        images += a.labels.len();
        if images >= TIMED {
            break;
        }
    }
    Ok(Some(sum as f64 / bytes as f64))
}

fn operations(set: &Dataset, views: &[View]) -> Result<BTreeMap<&'static str, f64>> {
    let (mut reader, mut augmenter, mut raster) = (Reader::default(), Augmenter::default(), Raster::default());
    let mut out = vec![0; views.iter().map(|view| view.size().pow(2) * 3).max().unwrap_or(0)];
    let step = set.images.len().div_ceil(TIMED);
    let mut clock = Clock::default();
    let mut count = 0;
    for sample in (0..set.images.len()).step_by(step) {
        clock.last = Some(Instant::now());
        let image = &set.images[sample];
        reader.read(&set.root, &image.path, image.within.as_ref())?;
        clock.lap("read");
        reader.decode(image.within.as_ref(), &mut raster)?;
        clock.lap("decode");
        let all = Drawn::of_sample(views, VIEW, 0, 0, sample as u32, (raster.width, raster.height));
        clock.lap("draw");
        for drawn in all {
            let out = &mut out[..drawn.cut.size.pow(2) * 3];
            augmenter.apply_apart(&drawn, &raster, out, |operation| clock.lap(operation));
        }
        count += 1;
    }
    Ok(clock.spent.into_iter().map(|(name, time)| (name, time.as_secs_f64() * 1e6 / f64::from(count))).collect())
}

#[derive(Default)]
struct Clock {
    last: Option<Instant>,
    spent: BTreeMap<&'static str, Duration>,
}

impl Clock {
    /// Adds the time since the last lap to `operation`.
    fn lap(&mut self, operation: &'static str) {
        let now = Instant::now();
        *self.spent.entry(operation).or_default() += now - self.last.unwrap_or(now);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_takes_time() {
        let folder = tempfile::tempdir().unwrap();
        let set = crate::loader::tests::set(folder.path(), 12);
        let views = Views::SingleCrop { size: 16 }.list();
        let report = loader(&set, &views, Decode::Full, 4, 2, Duration::from_millis(20)).unwrap();
        assert!(report.images >= 4 && report.images_per_second > 0.0, "{report:?}");
        assert!(report.microseconds.len() == 10 && report.microseconds.values().all(|t| *t > 0.0), "{report:?}");
        assert_eq!(report.difference, None);
        let scaled = loader(&set, &views, Decode::Scaled, 4, 2, Duration::from_millis(20)).unwrap();
        assert!(scaled.difference.is_some_and(|d| (0.0..20.0).contains(&d)), "{scaled:?}");
    }
}
