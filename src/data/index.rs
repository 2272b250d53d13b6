//! Builds an index: reads, decodes and hashes every image of a listing, in parallel.

use super::{
    dataset::{Dataset, Image, Unreadable},
    format::{Label, Listed, Listing},
    reader::Reader,
};
use anyhow::{Result, bail};
use caco_views::Raster;
use rayon::prelude::*;
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Maximum number of unreadable files that an error lists.
const SHOWN: usize = 20;

/// Examines the images that a format lists below `root`. Every image is decoded in full, because the header does not
/// reveal a truncated file. Unreadable files, and what the listing left out, are returned beside the index, sorted by
/// path; `progress` is called with the number of images done and the total.
pub fn build(root: &Path, listing: Listing, progress: impl Fn(u64, u64) + Sync) -> (Dataset, Vec<Unreadable>) {
    let (done, total) = (AtomicU64::new(0), listing.images.len() as u64);
    let read = |(reader, raster): &mut (Reader, Raster), listed: Listed| {
        let path = listed.path.clone();
        let image = examine(root, listed, reader, raster);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        image.map_err(|error| Unreadable { path, unreadable: format!("{error:#}") })
    };
    let (images, mut unreadable): (_, Vec<Unreadable>) =
        listing.images.into_par_iter().map_init(Default::default, read).partition_map(|image| match image {
            Ok(image) => rayon::iter::Either::Left(image),
            Err(unreadable) => rayon::iter::Either::Right(unreadable),
        });
    unreadable.extend(listing.left_out);
    unreadable.sort_by(|a, b| a.path.cmp(&b.path));
    (Dataset { root: root.into(), classes: listing.classes, images }, unreadable)
}

fn examine(root: &Path, listed: Listed, reader: &mut Reader, raster: &mut Raster) -> Result<Image> {
    let Listed { path, label, within } = listed;
    let read = reader.read(root, &path, within.as_ref())?;
    let (bytes, blake3) = (read.len() as u64, blake3::hash(read).to_hex().to_string());
    reader.decode(within.as_ref(), raster)?;
    let size = (raster.width as u32, raster.height as u32);
    let (label, shows) = match label {
        Label::One(class) => (class, None),
        Label::Several(classes) => (0, Some(classes)),
    };
    Ok(Image { path, label, shows, size, bytes, blake3, within })
}

/// Fails with the names of the unreadable files, up to a bound; an empty class counts as one.
pub fn refuse(unreadable: &[Unreadable]) -> Result<()> {
    if unreadable.is_empty() {
        return Ok(());
    }
    let listed: String = unreadable.iter().take(SHOWN).map(|u| format!("\n  {}: {}", u.path, u.unreadable)).collect();
    let more = unreadable.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  … and {more} more") } else { String::new() };
    bail!(
        "{} image(s) cannot be used; repair or remove them, or write `unreadable: LeaveOut` in the pipeline:{listed}{more}",
        unreadable.len()
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format;
    use caco_kinds::{Format, Split};
    use std::fs;

    /// The index of an image folder.
    pub fn folder(root: &Path) -> (Dataset, Vec<Unreadable>) {
        build(root, format::list(Format::ImageFolder, None, root).unwrap(), |_, _| ())
    }

    fn jpeg(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        jpeg_encoder::Encoder::new_file(path, 90)
            .unwrap()
            .encode(&[128; 5 * 4 * 3], 5, 4, jpeg_encoder::ColorType::Rgb)
            .unwrap();
    }

    #[test]
    fn images_are_examined_in_the_order_of_their_paths() {
        let root = tempfile::tempdir().unwrap();
        ["b/2.JPG", "b/1.jpeg", "a/3.jpg"].iter().for_each(|p| jpeg(&root.path().join(p)));
        let (set, unreadable) = folder(root.path());
        assert!(unreadable.is_empty());
        let found: Vec<(&str, u32, (u32, u32))> =
            set.images.iter().map(|i| (i.path.as_str(), i.label, i.size)).collect();
        assert_eq!(found, [("a/3.jpg", 0, (5, 4)), ("b/1.jpeg", 1, (5, 4)), ("b/2.JPG", 1, (5, 4))]);
        let file = fs::read(root.path().join("a/3.jpg")).unwrap();
        assert_eq!(set.images[0].blake3, blake3::hash(&file).to_hex().to_string());
    }

    #[test]
    fn every_unreadable_image_is_named() {
        let root = tempfile::tempdir().unwrap();
        ["a/1.jpg", "a/2.jpg", "a/3.jpg"].iter().for_each(|p| jpeg(&root.path().join(p)));
        let whole = fs::read(root.path().join("a/2.jpg")).unwrap();
        fs::write(root.path().join("a/2.jpg"), &whole[..whole.len() - 20]).unwrap();
        fs::write(root.path().join("a/3.jpg"), "text").unwrap();
        let (set, unreadable) = folder(root.path());
        assert_eq!(set.images.len(), 1);
        let error = format!("{:#}", refuse(&unreadable).unwrap_err());
        assert!(
            error.contains("2 image(s) cannot be used") && error.contains("a/2.jpg") && error.contains("a/3.jpg"),
            "{error}"
        );
    }

    #[test]
    fn images_within_a_file_are_examined_there() {
        let root = tempfile::tempdir().unwrap();
        let record: Vec<u8> = std::iter::once(1).chain((0..3072).map(|i| (i / 12) as u8)).collect();
        fs::write(root.path().join("test_batch.bin"), &record).unwrap();
        fs::write(root.path().join("batches.meta.txt"), "airplane\nautomobile\n").unwrap();
        let listing = format::list(Format::Cifar10, Some(Split::Test), root.path()).unwrap();
        let (set, unreadable) = build(root.path(), listing, |_, _| ());
        assert!(unreadable.is_empty());
        assert_eq!((set.images[0].label, set.images[0].size, set.images[0].bytes), (1, (32, 32), 3072));
        assert_eq!(set.images[0].blake3, blake3::hash(&record[1..]).to_hex().to_string());
    }
}
