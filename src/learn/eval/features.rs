//! Features of a frozen encoder as a file: `labels` i64 [n] (or [n, classes] of 0 and 1, if images can show several
//! classes) and `features` f32 [n, d]. They are written incrementally, so that no set is too large for memory and an
//! interrupted extraction resumes where it stopped.

use super::stream::{Backbone, Stream};
use crate::{model::Encoder, tensors::Tensors, train::collective};
use anyhow::{Context as _, Result, bail, ensure};
use caco_data::batch::Source;
use caco_kinds::Precision;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// Features read from a file.
#[derive(Debug)]
pub struct Features {
    /// f32 [n, d], on the CPU.
    pub features: Tensor,
    /// The labels of the images.
    pub labels: Labels,
    /// The image set.
    pub set: Set,
}

/// Labels of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The class of each image, 0 to classes − 1.
    One(Vec<i64>),
    /// Image by image, whether each class is present.
    Several(Vec<bool>),
}

impl Labels {
    /// The class of each image; an error if images can show several.
    pub fn one(&self) -> Result<&[i64]> {
        match self {
            Labels::One(labels) => Ok(labels),
            Labels::Several(_) => {
                bail!("an image of this set can show several classes; evaluate it by transfer_eval with metric: Map11")
            }
        }
    }

    /// Whether each image shows each class; an error if images have one class each.
    pub fn several(&self) -> Result<&[bool]> {
        match self {
            Labels::Several(shown) => Ok(shown),
            Labels::One(_) => {
                bail!("the images of this set have one class each; metric: Map11 is for images with several classes")
            }
        }
    }

    fn read(tensor: &Tensor, classes: usize) -> Result<Self> {
        let values = Vec::<i64>::try_from(tensor.contiguous().view(-1)).context("its tensor 'labels'")?;
        if tensor.dim() == 1 {
            let outside = values.iter().find(|label| !(0..classes as i64).contains(*label));
            ensure!(outside.is_none(), "label {} of {classes} classes", outside.copied().unwrap_or(-1));
            return Ok(Labels::One(values));
        }
        let fits = tensor.dim() == 2 && tensor.size()[1] == classes as i64;
        ensure!(fits, "labels of shape {:?} for {classes} classes", tensor.size());
        let strange = values.iter().find(|value| !(0..=1).contains(*value));
        ensure!(strange.is_none(), "{} found among labels of 0 and 1", strange.copied().unwrap_or_default());
        Ok(Labels::Several(values.iter().map(|&value| value == 1).collect()))
    }

    /// The numbers as stored in a file, and their shape.
    fn values(&self, classes: usize) -> (Vec<i64>, Vec<usize>) {
        match self {
            Labels::One(labels) => (labels.clone(), vec![labels.len()]),
            Labels::Several(shown) => {
                (shown.iter().map(|&there| there.into()).collect(), vec![shown.len() / classes.max(1), classes])
            }
        }
    }

    /// The labels of these images.
    fn select(&self, images: &[i64], classes: usize) -> Self {
        match self {
            Labels::One(labels) => Labels::One(images.iter().map(|&image| labels[image as usize]).collect()),
            Labels::Several(shown) => {
                let row = |&image: &i64| &shown[image as usize * classes..][..classes];
                Labels::Several(images.iter().flat_map(row).copied().collect())
            }
        }
    }
}

/// Describes the images of a features file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// A digest of the images: equal digests mean the same images in the same order.
    pub images: String,
}

impl Features {
    /// Reads a file written by [`extract`]. Errors name the file and the fault.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = Tensors::read(path)?;
        let mut read = || -> Result<Self> {
            let said = |key: &str| file.metadata.get(key).with_context(|| format!("its metadata lacks '{key}'"));
            let classes: Vec<String> = serde_json::from_str(said("classes")?).context("its metadata's 'classes'")?;
            let set = Set { classes, images: said("images")?.clone() };
            let Some(labels) = file.tensors.get("labels") else { bail!("it has no tensor 'labels'") };
            let rows = labels.size().first().copied().unwrap_or_default();
            let labels = Labels::read(labels, set.classes.len())?;
            let Some(features) = file.tensors.remove("features") else { bail!("it has no tensor 'features'") };
            ensure!(features.kind() == Kind::Float, "its features are of type {:?}, not f32", features.kind());
            let fits = features.dim() == 2 && features.size()[0] == rows;
            ensure!(fits, "{rows} labels for features of shape {:?}", features.size());
            Ok(Features { features, labels, set })
        };
        read().with_context(|| format!("{} is not a features file", path.display()))
    }

    /// The features of the images with these numbers.
    pub fn select(&self, images: &[i64]) -> Self {
        Features {
            features: self.features.index_select(0, &Tensor::from_slice(images)),
            labels: self.labels.select(images, self.set.classes.len()),
            set: self.set.clone(),
        }
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.features.size()[0] as usize
    }
}

/// An extraction: the encoder, the images and the settings.
pub struct Extraction<'a> {
    /// The network, which is not changed.
    pub encoder: &'a Encoder,
    /// The images, in order: the first view of epoch 0 is read.
    pub source: &'a dyn Source,
    /// Images per batch; the last may have fewer.
    pub batch: u64,
    /// The label of each image of the source.
    pub labels: &'a [i64],
    /// The labels stored beside the features: these, or several per image.
    pub kept: &'a Labels,
    /// The image set.
    pub set: &'a Set,
    /// The network's device.
    pub device: Device,
    /// Its floating-point precision.
    pub precision: Precision,
}

/// Writes features to `out`, by way of `partial`, from which an interrupted extraction resumes. `keep_going` is called
/// with the number of images done; if it returns false, the features so far stay in `partial` and the result is false.
/// Several processes extract together, and the first writes.
/// An error if the features of an image are not finite.
pub fn extract(this: &Extraction, partial: &Path, out: &Path, keep_going: &mut dyn FnMut(u64) -> bool) -> Result<bool> {
    let d = this.encoder.network.features() as u64;
    let images = this.labels.len() as u64;
    let (values, shape) = this.kept.values(this.set.classes.len());
    ensure!(shape[0] as u64 == images, "{} labels to store for {images} images", shape[0]);
    let together = collective::here();
    let open = || Rows::open(partial, header(&shape, d, this.set)?, &values, d * 4);
    let mut rows = (together.rank() == 0).then(open).transpose()?;
    let whole = together.all(rows.as_ref().map_or(0, |rows| rows.whole as i64))?[0] as u64;
    let first = if whole == images { images.div_ceil(this.batch) } else { whole / this.batch };
    let mut done = images.min(first * this.batch);
    rows.as_mut().map_or(Ok(()), |rows| rows.keep(done))?;
    if done < images {
        let backbone = Backbone { encoder: this.encoder, precision: this.precision, device: this.device };
        let mut batches = Stream::new(backbone, this.source, 0, first)?;
        while let Some(batch) = batches.next().transpose()? {
            let labels = &this.labels[done as usize..][..batch.labels.len()];
            ensure!(labels == batch.labels, "the images from number {done} on are not in the order of the index");
            batches.look_ahead();
            let features = batch.features.to_device(Device::Cpu);
            check(&features, done)?;
            rows.as_mut().map_or(Ok(()), |rows| rows.write(&features))?;
            done += batch.labels.len() as u64;
            if together.any(!keep_going(done))? {
                rows.as_mut().map_or(Ok(()), Rows::finish)?;
                return Ok(false);
            }
        }
    }
    ensure!(done == images, "{done} images were read, the index lists {images}");
    if let Some(mut rows) = rows {
        rows.finish()?;
        publish(partial, out)?;
    }
    Ok(true)
}

fn check(features: &Tensor, first: u64) -> Result<()> {
    let finite = features.isfinite().all_dim(1, false);
    if finite.all().int64_value(&[]) == 0 {
        let image = first + finite.to_kind(Kind::Int64).argmin(0, false).int64_value(&[]) as u64;
        bail!("the encoder's features of image number {image} are not finite");
    }
    Ok(())
}

/// The start of a safetensors file, up to its data: labels, then features.
fn header(shape: &[usize], d: u64, set: &Set) -> Result<Vec<u8>> {
    let (n, labels) = (shape[0] as u64, shape.iter().product::<usize>() as u64 * 8);
    let metadata = BTreeMap::from([("classes", serde_json::to_string(&set.classes)?), ("images", set.images.clone())]);
    let json = serde_json::json!({
        "__metadata__": metadata,
        "features": {"dtype": "F32", "shape": [n, d], "data_offsets": [labels, labels + 4 * n * d]},
        "labels": {"dtype": "I64", "shape": shape, "data_offsets": [0, labels]},
    });
    let mut json = serde_json::to_vec(&json)?;
    // Data starts at a multiple of eight bytes; the format allows trailing spaces in the header.
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// A file that grows by rows of features.
struct Rows {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes before the first row, and bytes per row.
    start: u64,
    row: u64,
    /// Complete rows found.
    whole: u64,
}

impl Rows {
    /// Opens the existing file, or starts over if there is none or it belongs to another set.
    fn open(path: &Path, mut start: Vec<u8>, labels: &[i64], row: u64) -> Result<Self> {
        start.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
        let open = || -> Result<Self> {
            let mut file = File::options().create(true).read(true).write(true).truncate(false).open(path)?;
            let length = file.metadata()?.len();
            let ours = length >= start.len() as u64 && starts_with(&mut file, &start)?;
            if !ours {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&start)?;
            }
            let whole = if ours { (length - start.len() as u64) / row } else { 0 };
            let file = BufWriter::with_capacity(1 << 20, file);
            Ok(Rows { path: path.into(), file, start: start.len() as u64, row, whole })
        };
        open().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps the first `rows` rows and continues after them.
    fn keep(&mut self, rows: u64) -> Result<()> {
        let length = self.start + rows * self.row;
        let cut = |file: &mut BufWriter<File>| {
            file.get_ref().set_len(length)?;
            file.seek(SeekFrom::Start(length))
        };
        cut(&mut self.file).map(drop).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&mut self, features: &Tensor) -> Result<()> {
        let values = Vec::<f32>::try_from(features.contiguous().view(-1))?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all(&bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn finish(&mut self) -> Result<()> {
        let flush = |file: &mut BufWriter<File>| file.flush().and_then(|()| file.get_ref().sync_all());
        flush(&mut self.file).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn starts_with(file: &mut File, start: &[u8]) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut found = vec![0; start.len()];
    file.read_exact(&mut found)?;
    Ok(found == start)
}

/// Moves a file, copying it across file systems.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let moved = fs::rename(from, to).or_else(|_| fs::copy(from, to).and_then(|_| fs::remove_file(from)));
    moved.with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sketch::{self, Drawn};

    fn features_of(encoder: &Encoder, drawn: &Drawn, stop_after: Option<u64>, folder: &Path) -> Result<bool> {
        let labels = drawn.labels();
        let set = Set { classes: vec!["a".into(), "b".into(), "c".into()], images: "digest".into() };
        let this = Extraction {
            encoder,
            source: drawn,
            batch: drawn.batch as u64,
            labels: &labels,
            kept: &Labels::One(labels.clone()),
            set: &set,
            device: Device::Cpu,
            precision: Precision::F32,
        };
        let mut keep_going = |done| stop_after.is_none_or(|stop| done < stop);
        extract(&this, &folder.join("partial"), &folder.join("features.safetensors"), &mut keep_going)
    }

    #[test]
    fn a_stopped_extraction_ends_in_the_same_bytes() {
        let (encoder, drawn) = (sketch::encoder(), Drawn { images: 10, classes: 3, batch: 4, size: 16, seed: 1 });
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert!(features_of(&encoder, &drawn, None, whole.path()).unwrap());
        assert!(!features_of(&encoder, &drawn, Some(8), stopped.path()).unwrap());
        // Bytes of a partially written batch.
        let mut partial = File::options().append(true).open(stopped.path().join("partial")).unwrap();
        partial.write_all(&[1; 50]).unwrap();
        assert!(features_of(&encoder, &drawn, None, stopped.path()).unwrap());
        let [a, b] = [&whole, &stopped].map(|folder| fs::read(folder.path().join("features.safetensors")).unwrap());
        assert_eq!(a, b);
        assert!(!stopped.path().join("partial").exists());
    }

    #[test]
    fn the_file_contains_features_labels_and_classes() {
        let (encoder, drawn) = (sketch::encoder(), Drawn { images: 5, classes: 3, batch: 2, size: 16, seed: 1 });
        let folder = tempfile::tempdir().unwrap();
        features_of(&encoder, &drawn, None, folder.path()).unwrap();
        let read = Features::read(&folder.path().join("features.safetensors")).unwrap();
        assert_eq!(read.set, Set { classes: vec!["a".into(), "b".into(), "c".into()], images: "digest".into() });
        assert_eq!(read.labels.one().unwrap(), drawn.labels());
        let batches: Vec<_> = drawn.epoch(0, 0).unwrap().map(|batch| batch.unwrap()).collect();
        let images: Vec<Tensor> = batches.iter().map(|b| crate::model::normalise(&b.views[0], Device::Cpu)).collect();
        let direct: Vec<Tensor> = images.iter().map(|images| encoder.features(images, Precision::F32)).collect();
        assert_eq!(read.features, Tensor::cat(&direct, 0));
        let some = read.select(&[4, 0]);
        assert_eq!(some.labels.one().unwrap(), [drawn.labels()[4], drawn.labels()[0]]);
        assert_eq!(some.features.get(0), read.features.get(4));
    }

    #[test]
    fn an_image_can_show_several_classes() {
        let drawn = Drawn { images: 3, classes: 3, batch: 2, size: 16, seed: 1 };
        let folder = tempfile::tempdir().unwrap();
        let shown = vec![true, false, true, false, false, false, false, true, false];
        let this = Extraction {
            encoder: &sketch::encoder(),
            source: &drawn,
            batch: 2,
            labels: &drawn.labels(),
            kept: &Labels::Several(shown.clone()),
            set: &Set { classes: ["a", "b", "c"].map(String::from).into(), images: "digest".into() },
            device: Device::Cpu,
            precision: Precision::F32,
        };
        let file = folder.path().join("features.safetensors");
        assert!(extract(&this, &folder.path().join("partial"), &file, &mut |_| true).unwrap());
        let read = Features::read(&file).unwrap();
        assert_eq!(read.labels.several().unwrap(), shown);
        assert_eq!(read.select(&[2, 0]).labels, Labels::Several([&shown[6..], &shown[..3]].concat()));
        assert!(read.labels.one().unwrap_err().to_string().contains("Map11"));
    }

    #[test]
    fn a_partial_file_of_another_set_is_not_resumed() {
        let encoder = sketch::encoder();
        let drawn = |seed| Drawn { images: 6, classes: 3, batch: 2, size: 16, seed };
        let folder = tempfile::tempdir().unwrap();
        let other = Drawn { classes: 2, ..drawn(2) };
        assert!(!features_of(&encoder, &other, Some(2), folder.path()).unwrap());
        assert!(features_of(&encoder, &drawn(1), None, folder.path()).unwrap());
        let read = Features::read(&folder.path().join("features.safetensors")).unwrap();
        assert_eq!(read.labels.one().unwrap(), drawn(1).labels());
    }

    #[test]
    fn features_that_are_not_finite_name_the_image() {
        let features = Tensor::from_slice(&[1.0f32, 2.0, 3.0, f32::NAN]).view([2, 2]);
        assert!(check(&features, 10).unwrap_err().to_string().contains("number 11"));
    }
}
