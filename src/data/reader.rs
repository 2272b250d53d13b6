//! Reads the images of a set, each a file or a part of a larger one, into a raster.

use super::{
    dataset::{Dataset, Within},
    decode::Decoder,
};
use anyhow::{Context, Result, bail, ensure};
use caco_views::Raster;
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Multi-image files kept open. Beyond this number all are closed: the usual limit is 1,024 per process.
const OPEN_MAX: usize = 32;

/// Reads images; between them it reuses its buffers and keeps multi-image files open. One per thread.
#[derive(Default)]
pub struct Reader {
    decoder: Decoder,
    bytes: Vec<u8>,
    open: BTreeMap<PathBuf, File>,
}

impl Reader {
    /// Reads and decodes a sample, a JPEG at 1/`scale` (1, 2, 4 or 8) of its size. Returns the scale used. An error
    /// names the file.
    pub fn image(&mut self, set: &Dataset, sample: u32, scale: u32, raster: &mut Raster) -> Result<u32> {
        let image = &set.images[sample as usize];
        let naming = || format!("cannot read image {}", set.file(sample).display());
        let now = self.read(&set.root, &image.path, image.within.as_ref()).with_context(naming)?.len();
        if now as u64 != image.bytes {
            let (path, then) = (set.file(sample), image.bytes);
            bail!("image {} has {now} bytes, the index says {then}; index the folder again", path.display());
        }
        let planes = image.within.as_ref().is_some_and(|within| within.planes.is_some());
        let used = if planes || scale == 1 {
            self.decode(image.within.as_ref(), raster).with_context(naming)?;
            1
        } else {
            self.decoder.decode_scaled(&self.bytes, scale, raster).with_context(naming)?
        };
        let (now, then) = ((raster.width, raster.height), image.size);
        let expected = (then.0.div_ceil(used) as usize, then.1.div_ceil(used) as usize);
        if now != expected {
            let path = set.file(sample);
            bail!("image {} does not have the size in the index, {then:?}; index the folder again", path.display());
        }
        Ok(used)
    }

    /// The stored bytes of an image, from the file `path` below `root` or from within another file.
    pub fn read(&mut self, root: &Path, path: &str, within: Option<&Within>) -> Result<&[u8]> {
        self.bytes.clear();
        match within {
            None => _ = File::open(root.join(path))?.read_to_end(&mut self.bytes)?,
            Some(within) => self.read_within(root, within).with_context(|| format!("in {}", within.file))?,
        }
        Ok(&self.bytes)
    }

    fn read_within(&mut self, root: &Path, within: &Within) -> Result<()> {
        let path = root.join(&within.file);
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&path) {
            self.open.clear();
        }
        let file = match self.open.entry(path) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let file = File::open(vacant.key())?;
                vacant.insert(file)
            }
        };
        // Memory is allocated for the bytes that exist, not for the length that the index claims.
        let end = within.offset.checked_add(within.bytes).filter(|end| file.metadata().is_ok_and(|m| *end <= m.len()));
        ensure!(end.is_some(), "the file is shorter than its index says; index the folder again");
        self.bytes.resize(within.bytes as usize, 0);
        Ok(file.read_exact_at(&mut self.bytes, within.offset)?)
    }

    /// Decodes the bytes read last.
    pub fn decode(&mut self, within: Option<&Within>, raster: &mut Raster) -> Result<()> {
        match within.and_then(|within| within.planes) {
            None => self.decoder.decode(&self.bytes, raster),
            Some((width, height)) => planes(&self.bytes, width as usize, height as usize, raster),
        }
    }
}

fn planes(bytes: &[u8], width: usize, height: usize, raster: &mut Raster) -> Result<()> {
    let count = bytes.len() / 3;
    ensure!(
        bytes.len() == 3 * count && width.checked_mul(height) == Some(count),
        "{} bytes are not three planes of {width} x {height}",
        bytes.len()
    );
    let (red, rest) = bytes.split_at(count);
    let (green, blue) = rest.split_at(count);
    raster.width = width;
    raster.height = height;
    raster.pixels.clear();
    raster.pixels.extend(red.iter().zip(green).zip(blue).map(|((r, g), b)| [*r, *g, *b, 255]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(file: &str, offset: u64, bytes: u64) -> Within {
        Within { file: file.into(), offset, bytes, planes: None }
    }

    #[test]
    fn parts_are_read_from_any_number_of_files() {
        let root = tempfile::tempdir().unwrap();
        let mut reader = Reader::default();
        for i in 0..3 * OPEN_MAX {
            std::fs::write(root.path().join(i.to_string()), format!("{i:03}abc")).unwrap();
        }
        for i in (0..3 * OPEN_MAX).chain(0..5) {
            let part = part(&i.to_string(), 1, 4);
            assert_eq!(reader.read(root.path(), "x", Some(&part)).unwrap(), &format!("{i:03}abc").as_bytes()[1..5]);
            assert!(reader.open.len() <= OPEN_MAX);
        }
    }

    #[test]
    fn parts_beyond_the_end_are_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "12345").unwrap();
        for (offset, bytes) in [(0, 6), (5, 1), (u64::MAX, 1), (1, u64::MAX), (0, 1 << 60)] {
            let error = Reader::default().read(root.path(), "x", Some(&part("f", offset, bytes))).unwrap_err();
            assert!(format!("{error:#}").contains("in f: the file is shorter"), "{error:#}");
        }
        let error = Reader::default().read(root.path(), "x", Some(&part("g", 0, 1))).unwrap_err();
        assert!(format!("{error:#}").contains("in g"), "{error:#}");
    }

    #[test]
    fn planes_become_pixels() {
        let mut raster = Raster::default();
        planes(&[1, 2, 3, 4, 5, 6], 2, 1, &mut raster).unwrap();
        assert_eq!((raster.width, raster.height, &raster.pixels[..]), (2, 1, &[[1, 3, 5, 255], [2, 4, 6, 255]][..]));
        assert!(planes(&[1, 2, 3], 2, 1, &mut raster).is_err());
        assert!(planes(&[], usize::MAX, usize::MAX, &mut raster).is_err());
    }
}
