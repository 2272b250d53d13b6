//! Resizing modelled on Pillow's (`src/libImaging/Resample.c`), bit-identical to version 13: the filter's support grows
//! when shrinking, one pass along the rows and one along the columns, each rounded to eight bits, with fixed-point
//! weights.

use super::{filter::Filter, raster::Raster, vectorise::vectorised};
use serde::{Deserialize, Serialize};

/// Fractional bits of a weight.
const BITS: u32 = 32 - 8 - 2;

/// A rectangle with integer pixel coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Region {
    /// The whole image, given its width and height.
    pub fn whole((width, height): (usize, usize)) -> Region {
        Region { left: 0, top: 0, width, height }
    }
}

/// Width and height of an image whose short side is resized to `short` pixels, as torchvision's `Resize` computes them.
pub fn short_side((width, height): (usize, usize), short: usize) -> (usize, usize) {
    let long = (short as f64 * width.max(height) as f64 / width.min(height) as f64) as usize;
    if width <= height { (short, long) } else { (long, short) }
}

/// The weights of one axis: output `i` is the weighted sum of `width` inputs starting at `first[i]`.
struct Taps {
    first: Vec<usize>,
    width: usize,
    /// `width` weights per output.
    weights: Vec<i32>,
}

impl Taps {
    /// The outputs `window` of an axis resized from `from` to `to` pixels.
    fn new(from: usize, to: usize, window: std::ops::Range<usize>, filter: Filter) -> Taps {
        let scale = from as f64 / to as f64;
        let filter_scale = scale.max(1.0);
        let support = support(filter) * filter_scale;
        let span = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            // Truncates, as in C; a value below 0 becomes 0 either way.
            let low = (centre - support + 0.5) as usize;
            let high = ((centre + support + 0.5) as usize).min(from);
            (centre, low, high)
        };
        let width = window.clone().map(|i| span(i).2 - span(i).1).max().unwrap_or(0);
        let mut taps = Taps { first: vec![], width, weights: Vec::with_capacity(width * window.len()) };
        let mut shares = Vec::with_capacity(width);
        for i in window {
            let (centre, low, high) = span(i);
            shares.clear();
            shares.extend((low..high).map(|x| weight(filter, (x as f64 - centre + 0.5) * (1.0 / filter_scale))));
            let sum: f64 = shares.iter().sum();
            let fixed = shares.iter().map(|w| fixed_point(if sum == 0.0 { *w } else { w / sum }));
            // Every output takes `width` inputs, so that all loops have the same length; the surplus has weight 0.
            let first = low.min(from - width);
            taps.first.push(first);
            taps.weights.extend(std::iter::repeat_n(0, low - first));
            taps.weights.extend(fixed);
            taps.weights.resize(taps.first.len() * width, 0);
        }
        taps
    }

    /// The first input that any output uses.
    fn start(&self) -> usize {
        self.first.iter().copied().min().unwrap_or(0)
    }

    /// One past the last input.
    fn end(&self) -> usize {
        self.first.iter().map(|first| first + self.width).max().unwrap_or(0)
    }

    fn of(&self, i: usize) -> (usize, &[i32]) {
        (self.first[i], &self.weights[i * self.width..(i + 1) * self.width])
    }
}

fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
    }
}

fn weight(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic => {
            const A: f64 = -0.5;
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        }
    }
}

/// Rounds half away from zero.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// Buffers that [`resample`] uses between its passes.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<[u8; 4]>,
    sums: Vec<i32>,
}

/// Cuts `crop` out of `image`, resizes it to `size` (width, height) and keeps `window` of the result, like
/// `image.crop(…).resize(size, filter).crop(window)` in Pillow. Pixels outside the crop have no influence.
pub fn resample(
    image: &Raster,
    crop: Region,
    size: (usize, usize),
    window: Region,
    filter: Filter,
    scratch: &mut Scratch,
    out: &mut Raster,
) {
    let columns = Taps::new(crop.width, size.0, window.left..window.left + window.width, filter);
    let rows = Taps::new(crop.height, size.1, window.top..window.top + window.height, filter);
    let inside = &image.pixels[crop.top * image.width + crop.left..];
    out.resize(window.width, window.height);
    let across = |row: &[[u8; 4]], line: &mut [[u8; 4]]| {
        if crop.width == size.0 {
            line.copy_from_slice(&row[window.left..window.left + window.width]);
        } else {
            horizontal(row, &columns, line);
        }
    };
    // The first pass covers only the rows or columns that the other pass reads.
    let (width, first, last) = if columns_first(crop, size) {
        (crop.width, 0, window.height)
    } else {
        (window.width, rows.start(), rows.end())
    };
    scratch.sums.resize(width * 4, 0);
    scratch.lines.resize((last - first) * width, [0; 4]);
    let between = scratch.lines.chunks_exact_mut(width.max(1));
    if columns_first(crop, size) {
        for (y, line) in between.enumerate() {
            let (top, weights) = rows.of(y);
            vertical(&inside[top * image.width..], image.width, weights, &mut scratch.sums, line);
        }
        let lines = scratch.lines.chunks_exact(width.max(1));
        lines.zip(out.pixels.chunks_exact_mut(window.width.max(1))).for_each(|(row, line)| across(row, line));
    } else {
        for (y, line) in (first..last).zip(between) {
            across(&inside[y * image.width..][..crop.width], line);
        }
        for (y, line) in out.pixels.chunks_exact_mut(window.width.max(1)).enumerate() {
            let (top, weights) = rows.of(y);
            vertical(&scratch.lines[(top - first) * width..], width, weights, &mut scratch.sums, line);
        }
    }
}

/// Whether Pillow sums along the columns first: since version 13, if the height shrinks by more than twice as many
/// pixels as the width (`horizontal_first` in Resample.c). The order affects the last bit.
fn columns_first(crop: Region, size: (usize, usize)) -> bool {
    let shrinks = |from: usize, to: usize| from as i64 - to as i64;
    let (down, across) = (shrinks(crop.height, size.1), shrinks(crop.width, size.0));
    down > 0 && down > 2 * across
}

vectorised! {
fn horizontal(row: &[[u8; 4]], taps: &Taps, out: &mut [[u8; 4]]) {
    for (i, pixel) in out.iter_mut().enumerate() {
        let (first, weights) = taps.of(i);
        let mut sum = [1 << (BITS - 1); 4];
        for (from, weight) in row[first..first + weights.len()].iter().zip(weights) {
            for c in 0..4 {
                sum[c] += i32::from(from[c]) * weight;
            }
        }
        for c in 0..4 {
            pixel[c] = (sum[c] >> BITS).clamp(0, 255) as u8;
        }
    }
}
}

vectorised! {
/// The weighted sum of lines that start `stride` pixels apart, as many as there are weights.
fn vertical(lines: &[[u8; 4]], stride: usize, weights: &[i32], sums: &mut [i32], out: &mut [[u8; 4]]) {
    let out = out.as_flattened_mut();
    sums.fill(1 << (BITS - 1));
    for (line, weight) in lines.chunks(stride).zip(weights) {
        for (sum, from) in sums.iter_mut().zip(&line.as_flattened()[..out.len()]) {
            *sum += i32::from(*from) * weight;
        }
    }
    for (to, sum) in out.iter_mut().zip(sums.iter()) {
        *to = (sum >> BITS).clamp(0, 255) as u8;
    }
}
}
