//! Packs the images of a set, shrunk, into a single file.

use super::{
    dataset::{Dataset, Image, Within},
    reader::Reader,
};
use anyhow::{Context, Result, anyhow};
use caco_kinds::{Encoding, Pack};
use caco_views::{Raster, Region, Scratch, resample, short_side};
use jpeg_encoder::{ColorType, Encoder};
use rayon::prelude::*;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

/// The file with all images.
const FILE: &str = "images.bin";
/// Images packed before they are written, which bounds memory.
const CHUNK: usize = 512;

/// Writes the images of `set`, in its order, into the folder `out`; returns the set that lists them there. The bytes do
/// not depend on the number of threads. `progress` is called with the number of images done and the total.
pub fn pack(set: &Dataset, parameters: &Pack, out: &Path, progress: impl Fn(u64, u64) + Sync) -> Result<Dataset> {
    let path = out.join(FILE);
    let naming = || format!("cannot write {}", path.display());
    std::fs::create_dir_all(out).with_context(naming)?;
    let mut file = BufWriter::new(File::create(&path).with_context(naming)?);
    let (mut offset, mut images) = (0, Vec::with_capacity(set.images.len()));
    let samples: Vec<u32> = (0..set.images.len() as u32).collect();
    for chunk in samples.chunks(CHUNK) {
        let make = |packer: &mut Packer, sample: &u32| packer.make(set, *sample, parameters);
        let made: Vec<Packed> = chunk.par_iter().map_init(Packer::default, make).collect::<Result<_>>()?;
        for (sample, packed) in chunk.iter().zip(made) {
            file.write_all(&packed.bytes).with_context(naming)?;
            images.push(packed.image(&set.images[*sample as usize], offset));
            offset += packed.bytes.len() as u64;
        }
        progress(images.len() as u64, set.images.len() as u64);
    }
    file.flush().with_context(naming)?;
    Ok(Dataset { root: out.into(), classes: set.classes.clone(), images })
}

/// An image as it is stored.
struct Packed {
    bytes: Vec<u8>,
    size: (u32, u32),
    planes: bool,
}

impl Packed {
    fn image(&self, of: &Image, offset: u64) -> Image {
        let bytes = self.bytes.len() as u64;
        let planes = self.planes.then_some(self.size);
        Image {
            size: self.size,
            bytes,
            blake3: blake3::hash(&self.bytes).to_hex().to_string(),
            within: Some(Within { file: FILE.into(), offset, bytes, planes }),
            ..of.clone()
        }
    }
}

/// The buffers that a thread reuses between images.
#[derive(Default)]
struct Packer {
    reader: Reader,
    image: Raster,
    small: Raster,
    scratch: Scratch,
}

impl Packer {
    fn make(&mut self, set: &Dataset, sample: u32, parameters: &Pack) -> Result<Packed> {
        self.reader.image(set, sample, 1, &mut self.image)?;
        let shrunk = self.shrink(parameters);
        let image = if shrunk { &self.small } else { &self.image };
        let listed = &set.images[sample as usize];
        let encoded = listed.within.as_ref().is_none_or(|within| within.planes.is_none());
        let bytes = match parameters.encoding {
            Encoding::Raw => planes(image),
            Encoding::Jpeg(_) if !shrunk && encoded => {
                self.reader.read(&set.root, &listed.path, listed.within.as_ref())?.to_vec()
            }
            Encoding::Jpeg(quality) => {
                jpeg(image, quality).with_context(|| format!("cannot pack {}", set.file(sample).display()))?
            }
        };
        let size = (image.width as u32, image.height as u32);
        Ok(Packed { bytes, size, planes: parameters.encoding == Encoding::Raw })
    }

    /// Shrinks `image` into `small` if it is larger than requested.
    fn shrink(&mut self, parameters: &Pack) -> bool {
        let (whole, short) = ((self.image.width, self.image.height), parameters.short as usize);
        if whole.0.min(whole.1) <= short {
            return false;
        }
        let size = short_side(whole, short);
        let (from, window) = (Region::whole(whole), Region::whole(size));
        resample(&self.image, from, size, window, parameters.filter, &mut self.scratch, &mut self.small);
        true
    }
}

fn planes(image: &Raster) -> Vec<u8> {
    (0..3).flat_map(|channel| image.pixels.iter().map(move |pixel| pixel[channel])).collect()
}

fn jpeg(image: &Raster, quality: u8) -> Result<Vec<u8>> {
    let side = |n: usize| u16::try_from(n).map_err(|_| anyhow!("a side has {n} pixels; a JPEG has at most 65,535"));
    let (width, height) = (side(image.width)?, side(image.height)?);
    let mut bytes = vec![];
    Encoder::new(&mut bytes, quality).encode(&image.to_rgb(), width, height, ColorType::Rgb)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Loader, Reading, Transform, batch::Source as _, loader::tests::set};
    use caco_kinds::Filter;

    fn packed(short: u32, encoding: Encoding, threads: usize) -> (tempfile::TempDir, Dataset, Dataset, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let set = set(&folder.path().join("images"), 9);
        let parameters = Pack { index: String::new(), short, filter: Filter::Bilinear, encoding };
        let out = folder.path().join("packed");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let packed = pool.install(|| pack(&set, &parameters, &out, |_, _| ())).unwrap();
        let bytes = std::fs::read(out.join(FILE)).unwrap();
        (folder, set, packed, bytes)
    }

    /// Images resized to a short side of 20 and cut there, from the centre.
    fn read(set: &Dataset) -> Vec<u8> {
        let transform = Transform::Centre { resize: 20, crop: 20, filter: Filter::Bilinear };
        let reading = Reading { transform, batch: 9, shuffle: false, drop_last: false, seed: 0, threads: 2 };
        let batch = Loader::new(set, reading).unwrap().epoch(0, 0).unwrap().next().unwrap().unwrap();
        batch.views[0].data.to_vec()
    }

    #[test]
    fn raw_pixels_are_those_of_the_resized_images() {
        let (_folder, set, packed, bytes) = packed(20, Encoding::Raw, 2);
        assert_eq!(packed.images[0].size, (26, 20));
        assert_eq!(bytes.len(), 9 * 26 * 20 * 3);
        assert_eq!(read(&packed), read(&set));
        let names = |set: &Dataset| set.images.iter().map(|i| (i.path.clone(), i.label)).collect::<Vec<_>>();
        assert_eq!(names(&packed), names(&set));
    }

    #[test]
    fn files_that_are_small_enough_stay_as_they_are() {
        let (_folder, set, packed, bytes) = packed(30, Encoding::Jpeg(95), 2);
        let files: Vec<u8> = (0..9).flat_map(|sample| std::fs::read(set.file(sample)).unwrap()).collect();
        assert_eq!(bytes, files);
        assert_eq!(read(&packed), read(&set));
    }

    #[test]
    fn threads_change_no_byte_and_jpeg_little() {
        let (_one, _, first, bytes) = packed(20, Encoding::Jpeg(95), 1);
        let (_many, set, second, other) = packed(20, Encoding::Jpeg(95), 3);
        assert_eq!((bytes, &first.images), (other, &second.images));
        let (a, b) = (read(&set), read(&second));
        let mean = a.iter().zip(&b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
        assert!(mean > 0.0 && mean < 6.0, "{mean}");
    }
}
