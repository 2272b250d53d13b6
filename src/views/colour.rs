//! Colour operations, meant to be bit-identical to torchvision's `transforms.functional` on PIL images: eight bits
//! after each step, blends in single precision, hue via eight-bit HSV.

use super::vectorise::vectorised;

/// `ImageEnhance.Brightness`: scales towards (below 1) or away from black.
pub fn brightness(pixels: &mut [[u8; 4]], factor: f64) {
    blend_grey(pixels, 0, factor as f32);
}

/// `ImageEnhance.Contrast`: scales towards or away from the grey `mean` of the whole image, [`mean_grey`].
pub fn contrast(pixels: &mut [[u8; 4]], mean: u8, factor: f64) {
    blend_grey(pixels, mean, factor as f32);
}

/// `ImageEnhance.Color`: scales towards or away from the pixel's own grey.
pub fn saturation(pixels: &mut [[u8; 4]], factor: f64) {
    saturate(pixels, factor as f32);
}

/// `adjust_hue` by −0.5 to 0.5 turns, which are truncated to 255ths and then taken modulo 256.
pub fn hue(pixels: &mut [[u8; 4]], turns: f64) {
    shift_hue(pixels, (turns * 255.0) as i32 as u8);
}

/// The rounded mean of the image's grey values, as `ImageEnhance.Contrast` computes it.
pub fn mean_grey(pixels: &[[u8; 4]]) -> u8 {
    let sum: u64 = pixels.chunks(1024).map(|block| u64::from(sum_grey(block))).sum();
    (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8
}

#[inline(always)]
fn split(pixel: [u8; 4]) -> [i32; 3] {
    let word = i32::from_le_bytes(pixel);
    [word & 255, word >> 8 & 255, word >> 16 & 255]
}

#[inline(always)]
fn join([r, g, b]: [i32; 3]) -> [u8; 4] {
    (r | g << 8 | b << 16 | 255 << 24).to_le_bytes()
}

/// ITU-R 601-2 in 16-bit fixed point.
#[inline(always)]
fn luma([r, g, b]: [i32; 3]) -> i32 {
    (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
}

/// Pillow's `Image.blend`: in single precision, truncated rather than rounded.
#[inline(always)]
pub fn blend(from: i32, to: i32, factor: f32) -> i32 {
    whole(from as f32 + factor * (to - from) as f32)
}

/// Truncates and clamps to 0 to 255. `as i32` also handles NaN and the limits of i32, for which there is no vector
/// instruction: it makes the loops four times slower.
#[inline(always)]
fn whole(x: f32) -> i32 {
    // In this form NaN fails the comparison.
    let x = if x > 0.0 { x } else { 0.0 };
    let x = if x < 255.0 { x } else { 255.0 };
    // SAFETY: x is a number from 0 to 255.
    unsafe { x.to_int_unchecked() }
}

vectorised! {
fn sum_grey(pixels: &[[u8; 4]]) -> u32 {
    pixels.iter().map(|&p| luma(split(p)) as u32).sum()
}
}

vectorised! {
fn blend_grey(pixels: &mut [[u8; 4]], grey: u8, factor: f32) {
    for p in pixels {
        *p = join(split(*p).map(|v| blend(i32::from(grey), v, factor)));
    }
}
}

vectorised! {
fn saturate(pixels: &mut [[u8; 4]], factor: f32) {
    for p in pixels {
        let rgb = split(*p);
        let grey = luma(rgb);
        *p = join(rgb.map(|v| blend(grey, v, factor)));
    }
}
}

vectorised! {
/// `convert("L").convert("RGB")`.
pub fn grey(pixels: &mut [[u8; 4]]) {
    for p in pixels {
        *p = join([luma(split(*p)); 3]);
    }
}
}

vectorised! {
/// `ImageOps.solarize`: inverts values of at least `threshold`.
pub fn solarize(pixels: &mut [[u8; 4]], threshold: u8) {
    for p in pixels {
        *p = join(split(*p).map(|v| if v >= i32::from(threshold) { 255 - v } else { v }));
    }
}
}

vectorised! {
fn shift_hue(pixels: &mut [[u8; 4]], step: u8) {
    for p in pixels {
        let [h, s, v] = hsv(split(*p));
        *p = join(rgb([(h + i32::from(step)) & 255, s, v]));
    }
}
}

/// Selects `yes` or `no` by arithmetic that cannot compile to a branch: loops with branches are not vectorised.
#[inline(always)]
fn select(condition: bool, yes: i32, no: i32) -> i32 {
    no ^ ((yes ^ no) & -i32::from(condition))
}

/// Pillow's `rgb2hsv_row`. Pillow computes the hue in double precision; this uses single precision in an order that
/// gives the same eight bits for all 2^24 colours, which a test checks.
#[inline(always)]
fn hsv([r, g, b]: [i32; 3]) -> [i32; 3] {
    let (top, low) = (r.max(g).max(b), r.min(g).min(b));
    let range = top - low;
    // One channel is the maximum, one the minimum; the distance of the middle one from the maximum decides the hue.
    let middle = r + g + b - top - low;
    let range_or_one = range.max(1) as f32;
    let share = (top - middle) as f32 / range_or_one;
    // Each sextant as its origin and direction; where two channels are the maximum, Pillow checks red first, then
    // green.
    let (red, green) = (r == top, (g == top) & (r != top));
    let falls = select(red, i32::from(g != low), select(green, i32::from(r == low), i32::from(g == low)));
    let even = select(red, 1, select(green, 3, 5));
    let origin =
        select(red & (g == low), -1, select(green & (r != low), 1, select(!red & !green & (g != low), 3, even)));
    let turn = origin as f32 + (1 - 2 * falls) as f32 * share;
    let sixth = turn / 6.0;
    let angle = if turn < 0.0 { sixth + 1.0 } else { sixth };
    let h = floor_of_255_times(angle);
    let s = floor_of_255_times(range as f32 / top.max(1) as f32);
    [select(range == 0, 0, h), s, top]
}

/// ⌊255 x⌋ of the exact product, for 0 ≤ x ≤ 1: the rounded product may reach the next integer.
#[inline(always)]
fn floor_of_255_times(x: f32) -> i32 {
    let guess = whole(x * 255.0);
    // Both the product by a power of two and this difference are exact.
    guess - i32::from(x * 256.0 - (guess as f32) < x)
}

/// Pillow's `hsv2rgb` in integer arithmetic, which rounds the same way; a test checks all 2^24 triples.
#[inline(always)]
fn rgb([h, s, v]: [i32; 3]) -> [i32; 3] {
    // 6 h / 255 = 2 h / 85: the sextant and the position in it.
    let sextant = (2 * h * 772) >> 16;
    let place = 2 * h - 85 * sextant;
    let dim = |part: i32| {
        // v (1 - s/255 part/85), rounded; never a tie, since 255 · 85 is odd.
        let doubled = 2 * v * (21675 - s * part) + 21675;
        whole(doubled as f32 / 43350.0)
    };
    let (p, q, t) = (dim(85), dim(place), dim(85 - place));
    // Red is v in sextants 5 and 0, falls to p, stays and rises; green and blue follow a third of a turn later each.
    // Only comparisons, so that the loop is vectorised. h = 255 is a full turn.
    let channel = |late: i32| {
        let at = sextant + 6 - late;
        let at = at - select(at >= 12, 12, select(at >= 6, 6, 0));
        select(at == 4, t, select(at == 1, q, select((at == 2) | (at == 3), p, v)))
    };
    [channel(0), channel(2), channel(4)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow's rgb2hsv_row, line by line.
    fn pillow_hsv([r, g, b]: [i32; 3]) -> [i32; 3] {
        let (top, low) = (r.max(g).max(b), r.min(g).min(b));
        if top == low {
            return [0, 0, top];
        }
        let range = (top - low) as f32;
        let s = range / top as f32;
        let [rc, gc, bc] = [r, g, b].map(|v| (top - v) as f32 / range);
        let h = if r == top {
            bc - gc
        } else if g == top {
            (2.0 + f64::from(rc) - f64::from(bc)) as f32
        } else {
            (4.0 + f64::from(gc) - f64::from(rc)) as f32
        };
        let h = ((f64::from(h) / 6.0 + 1.0) % 1.0) as f32;
        let byte = |x: f32| ((f64::from(x) * 255.0) as i32).clamp(0, 255);
        [byte(h), byte(s), top]
    }

    /// Pillow's hsv2rgb, line by line.
    fn pillow_rgb([h, s, v]: [i32; 3]) -> [i32; 3] {
        if s == 0 {
            return [v; 3];
        }
        let turns = f64::from(h as f32) * 6.0 / 255.0;
        let i = turns.floor();
        let f = f64::from((turns - i) as f32);
        let fs = f64::from((f64::from(s as f32) / 255.0) as f32);
        let value = f64::from(v as f32);
        let round = |x: f64| (x.round() as i32).clamp(0, 255);
        let (p, q, t) =
            (round(value * (1.0 - fs)), round(value * (1.0 - fs * f)), round(value * (1.0 - fs * (1.0 - f))));
        match i as i32 % 6 {
            0 => [v, t, p],
            1 => [q, v, p],
            2 => [p, v, t],
            3 => [p, q, v],
            4 => [t, p, v],
            _ => [v, p, q],
        }
    }

    fn every_triple(check: impl Fn([i32; 3])) {
        (0..1 << 24).for_each(|word: i32| check([word & 255, word >> 8 & 255, word >> 16]));
    }

    #[test]
    fn every_colour_has_pillows_hue() {
        every_triple(|colour| assert_eq!(hsv(colour), pillow_hsv(colour), "{colour:?}"));
    }

    #[test]
    fn every_hue_has_pillows_colour() {
        every_triple(|triple| assert_eq!(rgb(triple), pillow_rgb(triple), "{triple:?}"));
    }
}
