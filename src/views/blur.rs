//! `ImageFilter.GaussianBlur`, modelled on Pillow's (`src/libImaging/BoxBlur.c`) and meant to be bit-identical: three
//! passes of a box whose end pixels have fractional weights, along the rows and then along the columns, each pass
//! rounded to eight bits.

use super::{raster::Raster, vectorise::vectorised};

const PASSES: usize = 3;

/// The weights of an extended box: `2 · radius + 1` whole pixels and one at either end, in 24 bits of fixed point.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Extended {
    radius: usize,
    whole: u32,
    end: u32,
}

/// The box whose `PASSES` passes have the variance of a Gaussian (Gwosdek et al. 2011, "Theoretical foundations of
/// Gaussian convolution by extended box filtering"), in single precision as Pillow has it.
fn extended(sigma: f32) -> Extended {
    let variance = sigma * sigma / PASSES as f32;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
        / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
    let radius = whole + part;
    let pixels = radius as u32;
    let weight = ((1 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
    Extended { radius: pixels as usize, whole: weight, end: ((1 << 24) - (pixels * 2 + 1) * weight) / 2 }
}

/// Blurs in place. `sigma`, in pixels, is what Pillow calls the radius.
pub fn gaussian(image: &mut Raster, sigma: f64, spare: &mut Raster) {
    let extended = extended(sigma as f32);
    if image.pixels.is_empty() || sigma == 0.0 {
        return;
    }
    spare.resize(image.width, image.height);
    for _ in 0..PASSES {
        for (from, to) in image.pixels.chunks_exact(image.width).zip(spare.pixels.chunks_exact_mut(image.width)) {
            along_row(from, to, extended);
        }
        std::mem::swap(image, spare);
    }
    for _ in 0..PASSES {
        for y in 0..image.height {
            let line = |dy: isize| image.row((y as isize + dy).clamp(0, image.height as isize - 1) as usize);
            let to = &mut spare.pixels[y * image.width..(y + 1) * image.width];
            let reach = extended.radius as isize;
            match extended.radius {
                0 => three(line(-1), line(0), line(1), to, extended),
                1 => five([line(-2), line(-1), line(0), line(1), line(2)], to, extended),
                _ => {
                    let inside: Vec<_> = (-reach..=reach).map(line).collect();
                    any(line(-reach - 1), &inside, line(reach + 1), to, extended);
                }
            }
        }
        std::mem::swap(image, spare);
    }
}

/// The output where the whole pixels sum to `inside` and the two at the ends to `ends`. Cannot overflow: the weights
/// sum to at most 2^24.
#[inline(always)]
fn weigh(inside: u32, ends: u32, extended: Extended) -> u8 {
    ((inside * extended.whole + ends * extended.end + (1 << 23)) >> 24) as u8
}

/// Pixels outside the row repeat the pixel at its end.
fn along_row(from: &[[u8; 4]], to: &mut [[u8; 4]], extended: Extended) {
    let reach = extended.radius + 1;
    let inner = reach..from.len().saturating_sub(reach).max(reach);
    if inner.is_empty() {
        (0..from.len()).for_each(|x| edge(from, to, x, extended));
        return;
    }
    (0..reach).chain(inner.end..from.len()).for_each(|x| edge(from, to, x, extended));
    let line = |dx: usize| &from[dx..dx + inner.len()];
    let to = &mut to[inner.clone()];
    match extended.radius {
        0 => three(line(0), line(1), line(2), to, extended),
        1 => five([line(0), line(1), line(2), line(3), line(4)], to, extended),
        radius => {
            let inside: Vec<_> = (1..2 * radius + 2).map(line).collect();
            any(line(0), &inside, line(2 * radius + 2), to, extended);
        }
    }
}

fn edge(from: &[[u8; 4]], to: &mut [[u8; 4]], x: usize, extended: Extended) {
    let reach = extended.radius as isize;
    let at = |dx: isize, c: usize| u32::from(from[(x as isize + dx).clamp(0, from.len() as isize - 1) as usize][c]);
    for (c, value) in to[x].iter_mut().enumerate() {
        let inside = (-reach..=reach).map(|dx| at(dx, c)).sum();
        *value = weigh(inside, at(-reach - 1, c) + at(reach + 1, c), extended);
    }
}

vectorised! {
fn three(a: &[[u8; 4]], b: &[[u8; 4]], c: &[[u8; 4]], to: &mut [[u8; 4]], extended: Extended) {
    let (a, b, c, to) = (a.as_flattened(), b.as_flattened(), c.as_flattened(), to.as_flattened_mut());
    let count = to.len();
    let (a, b, c) = (&a[..count], &b[..count], &c[..count]);
    for i in 0..count {
        to[i] = weigh(b[i].into(), u32::from(a[i]) + u32::from(c[i]), extended);
    }
}
}

vectorised! {
fn five(lines: [&[[u8; 4]]; 5], to: &mut [[u8; 4]], extended: Extended) {
    let to = to.as_flattened_mut();
    let count = to.len();
    let [a, b, c, d, e] = lines.map(|line| &line.as_flattened()[..count]);
    for i in 0..count {
        let inside = u32::from(b[i]) + u32::from(c[i]) + u32::from(d[i]);
        to[i] = weigh(inside, u32::from(a[i]) + u32::from(e[i]), extended);
    }
}
}

vectorised! {
fn any(first: &[[u8; 4]], inside: &[&[[u8; 4]]], last: &[[u8; 4]], to: &mut [[u8; 4]], extended: Extended) {
    for (x, pixel) in to.iter_mut().enumerate() {
        for c in 0..4 {
            let sum = inside.iter().map(|line| u32::from(line[x][c])).sum();
            pixel[c] = weigh(sum, u32::from(first[x][c]) + u32::from(last[x][c]), extended);
        }
    }
}
}
