//! A contact sheet: images of a set, each beside the views that training would make of it.

use super::{
    dataset::{Dataset, Image},
    format::{self, Label, Listed, Listing},
    index,
    reader::Reader,
};
use anyhow::{Context, Result, ensure};
use caco_kinds::{Format, Split};
use caco_measure::rng::Rng;
use caco_views::{Augmenter, Drawn, Filter, Raster, Region, Scratch, VIEW, View, Views, resample};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Pixels between two pictures.
const GAP: usize = 4;
/// Maximum side of the sheet in pixels: viewers do not open larger images.
const SIDE_MAX: usize = 32_768;

/// What to show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// An index; without it the folder is read as `format`.
    pub index: Option<PathBuf>,
    /// The folder of the images.
    pub root: PathBuf,
    /// The layout of the folder.
    #[serde(default)]
    pub format: Format,
    /// The split of that layout.
    #[serde(default)]
    pub split: Option<Split>,
    /// The views made of each image.
    pub views: Views,
    /// Seed for choosing the images and drawing the views.
    pub seed: u64,
    /// The epoch whose views are shown.
    pub epoch: u64,
    /// Number of images.
    pub count: usize,
    /// The PNG file to write.
    pub out: PathBuf,
}

/// A row of the sheet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The image's name in the set.
    pub path: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// Width and height, in pixels.
    pub size: (u32, u32),
    /// Its number in the index.
    pub sample: u32,
}

/// Writes the sheet and returns its rows, from the top. The views are those that training with this seed sees in this
/// epoch.
pub fn draw(setup: &Setup) -> Result<Vec<Row>> {
    let (set, samples) = open(setup)?;
    ensure!(!set.images.is_empty(), "there are no images");
    let sheet = paint(&set, &samples, &setup.views.list(), setup)?;
    let (width, height) = (sheet.width as u32, sheet.height as u32);
    let picture = image::RgbImage::from_raw(width, height, sheet.to_rgb()).context("a sheet has all its pixels")?;
    picture
        .save_with_format(&setup.out, image::ImageFormat::Png)
        .with_context(|| format!("cannot write {}", setup.out.display()))?;
    Ok(set.images.iter().zip(samples).map(|(image, sample)| row(&set, image, sample)).collect())
}

/// The images to show, and their numbers in the whole set. Of a folder, only these are read.
fn open(setup: &Setup) -> Result<(Dataset, Vec<u32>)> {
    if let Some(index) = &setup.index {
        let set = Dataset::open(index, &setup.root)?;
        let first = |image: &Image| image.shows.as_ref().map_or(Some(image.label), |shows| shows.first().copied());
        let samples = choose(set.images.iter().map(first).collect(), setup);
        return Ok((set.subset(&samples), samples));
    }
    let listing = format::list(setup.format, setup.split, &setup.root)?;
    let first = |image: &Listed| match &image.label {
        Label::One(class) => Some(*class),
        Label::Several(classes) => classes.first().copied(),
    };
    let samples = choose(listing.images.iter().map(first).collect(), setup);
    let images = samples.iter().map(|sample| listing.images[*sample as usize].clone()).collect();
    let (set, unreadable) = index::build(&setup.root, Listing { images, left_out: vec![], ..listing }, |_, _| ());
    index::refuse(&unreadable)?;
    Ok((set, samples))
}

/// Chooses images of as many classes as there is room for, given one class of each image.
fn choose(classes: Vec<Option<u32>>, setup: &Setup) -> Vec<u32> {
    let mut seen = BTreeMap::new();
    // Images are sorted by how many of their class precede them: the first of every class, then the second of every
    // class.
    let turn = |sample: u32| {
        let before = seen.entry(classes[sample as usize]).or_insert(0u32);
        *before += 1;
        (*before, sample)
    };
    let order = Rng::new(setup.seed, "sheet", 0, 0).permutation(classes.len());
    let mut turns: Vec<(u32, u32)> = order.into_iter().map(turn).collect();
    turns.sort_by_key(|(before, _)| *before);
    let mut samples: Vec<u32> = turns.into_iter().take(setup.count).map(|(_, sample)| sample).collect();
    samples.sort_unstable();
    samples
}

fn row(set: &Dataset, image: &Image, sample: u32) -> Row {
    let shown = image.shows.clone().unwrap_or_else(|| vec![image.label]);
    let classes = shown.iter().map(|class| set.classes[*class as usize].clone()).collect();
    Row { path: image.path.clone(), classes, size: image.size, sample }
}

fn paint(set: &Dataset, samples: &[u32], views: &[View], setup: &Setup) -> Result<Raster> {
    let cell = views.iter().map(View::size).max().unwrap_or(64);
    let (width, height) = ((views.len() + 1) * (cell + GAP) + GAP, samples.len() * (cell + GAP) + GAP);
    let fits = width.max(height) <= SIDE_MAX;
    ensure!(fits, "the sheet would have {width} x {height} pixels; show fewer images, or smaller views");
    let mut sheet = Raster::new(width, height);
    sheet.pixels.fill([255; 4]);
    let (mut reader, mut augmenter, mut scratch) = (Reader::default(), Augmenter::default(), Scratch::default());
    let (mut image, mut small) = (Raster::default(), Raster::default());
    for (place, sample) in samples.iter().enumerate() {
        let top = GAP + place * (cell + GAP);
        reader.image(set, place as u32, 1, &mut image)?;
        shrink(&image, cell, &mut scratch, &mut small);
        blit(&mut sheet, &small, GAP, top);
        let size = (image.width, image.height);
        let drawn = Drawn::of_sample(views, VIEW, setup.seed, setup.epoch, *sample, size);
        for (number, drawn) in drawn.iter().enumerate() {
            let size = drawn.cut.size;
            let mut out = vec![0; size * size * 3];
            augmenter.apply(drawn, &image, &mut out);
            let view = Raster::from_rgb(size, size, &out);
            blit(&mut sheet, &view, GAP + (number + 1) * (cell + GAP), top);
        }
    }
    Ok(sheet)
}

/// The whole image within a square.
fn shrink(image: &Raster, side: usize, scratch: &mut Scratch, small: &mut Raster) {
    let long = image.width.max(image.height);
    let scaled = |n: usize| (n * side / long).max(1);
    let size = (scaled(image.width), scaled(image.height));
    let whole = Region::whole((image.width, image.height));
    resample(image, whole, size, Region::whole(size), Filter::Bilinear, scratch, small);
}

fn blit(sheet: &mut Raster, picture: &Raster, left: usize, top: usize) {
    for y in 0..picture.height {
        let start = (top + y) * sheet.width + left;
        sheet.pixels[start..start + picture.width].copy_from_slice(picture.row(y));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(root: &std::path::Path, out: PathBuf) -> Setup {
        Setup {
            index: None,
            root: root.into(),
            format: Format::ImageFolder,
            split: None,
            views: Views::SingleCrop { size: 16 },
            seed: 3,
            epoch: 2,
            count: 4,
            out,
        }
    }

    #[test]
    fn a_sheet_shows_every_class_and_the_views_of_a_training() {
        let folder = tempfile::tempdir().unwrap();
        let set = crate::loader::tests::set(&folder.path().join("images"), 9);
        let out = folder.path().join("sheet.png");
        let rows = draw(&setup(&set.root, out.clone())).unwrap();
        assert_eq!(rows.len(), 4);
        let classes: std::collections::BTreeSet<&String> = rows.iter().flat_map(|row| &row.classes).collect();
        assert_eq!(classes.len(), 3);
        let sheet = image::open(&out).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (3 * 20 + 4, 4 * 20 + 4));

        use crate::{Loader, Reading, Transform, batch::Source as _};
        let transform = Transform::Views(Views::SingleCrop { size: 16 }.list());
        let reading = Reading { transform, batch: 9, shuffle: false, drop_last: false, seed: 3, threads: 1 };
        let batch = Loader::new(&set, reading).unwrap().epoch(2, 0).unwrap().next().unwrap().unwrap();
        let sample = rows[0].sample as usize;
        for view in 0..2 {
            let expected = &batch.views[view].data[sample * 768..(sample + 1) * 768];
            let shown: Vec<u8> =
                (0..256u32).flat_map(|p| sheet.get_pixel(24 + 20 * view as u32 + p % 16, 4 + p / 16).0).collect();
            assert_eq!(shown, expected, "view {view}");
        }
    }

    #[test]
    fn a_sheet_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let set = crate::loader::tests::set(&folder.path().join("images"), 3);
        let large = Setup { views: Views::SingleCrop { size: 4096 }, ..setup(&set.root, folder.path().join("x.png")) };
        let large = Setup { views: Views::MultiCrop { size: 4096, small: 96, count: 7 }, ..large };
        assert!(format!("{:#}", draw(&large).unwrap_err()).contains("show fewer images"));
        assert!(!folder.path().join("x.png").exists());
    }
}
