//! A contact sheet: images, each beside its views, for the eye.

use super::{batch::Pixels, raster::Raster};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;

/// Pixels between tiles.
const GAP: usize = 2;

/// A sheet of `rows`, each a list of pictures of any sizes, set in columns, top left aligned, on white.
pub fn compose(rows: &[Vec<Raster>]) -> Raster {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|c| rows.iter().filter_map(|row| row.get(c)).map(|r| r.width).max().unwrap_or(0)).collect();
    let heights: Vec<usize> = rows.iter().map(|row| row.iter().map(|r| r.height).max().unwrap_or(0)).collect();
    let extent = |sides: &[usize]| sides.iter().map(|side| side + GAP).sum::<usize>() + GAP;
    let mut sheet = Raster::new(extent(&widths), extent(&heights));
    sheet.pixels.fill([255; 4]);
    let mut top = GAP;
    for (row, height) in rows.iter().zip(&heights) {
        let mut left = GAP;
        for (tile, width) in row.iter().zip(&widths) {
            for y in 0..tile.height {
                let start = (top + y) * sheet.width + left;
                sheet.pixels[start..start + tile.width].copy_from_slice(tile.row(y));
            }
            left += width + GAP;
        }
        top += height + GAP;
    }
    sheet
}

/// Picture `i` of a view.
pub fn picture(view: &Pixels, i: usize) -> Raster {
    let (height, width) = view.size;
    let bytes = height * width * 3;
    Raster::from_rgb(width, height, &view.data[i * bytes..(i + 1) * bytes])
}

/// Writes `raster` as a PNG file.
pub fn write_png(raster: &Raster, path: &Path) -> Result<()> {
    ensure!(!raster.pixels.is_empty(), "nothing to draw in {}", path.display());
    let (width, height) = (u32::try_from(raster.width)?, u32::try_from(raster.height)?);
    image::save_buffer_with_format(
        path,
        &raster.to_rgb(),
        width,
        height,
        image::ColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .with_context(|| format!("cannot write {}", path.display()))
}
