//! Tables that map the 256 values of each channel, some of which follow from the histogram of the whole image: those of
//! Pillow's `ImageOps`.

use super::vectorise::vectorised;

/// A new value for each value of red, green and blue.
pub type Levels = [[u8; 256]; 3];

/// Maps every pixel.
pub fn apply(levels: &Levels, pixels: &mut [[u8; 4]]) {
    for pixel in pixels {
        for (value, level) in pixel.iter_mut().zip(levels) {
            *value = level[usize::from(*value)];
        }
    }
}

vectorised! {
/// `ImageOps.posterize`: keeps the upper bits of each value.
pub fn posterize(pixels: &mut [[u8; 4]], bits: u8) {
    let mask = !(0xff_u8.checked_shr(bits.into()).unwrap_or(0));
    for pixel in pixels {
        *pixel = pixel.map(|value| value & mask);
    }
}
}

/// `ImageOps.autocontrast`: the darkest value becomes 0, the lightest 255.
pub fn stretched(pixels: &[[u8; 4]]) -> Levels {
    histogram(pixels).map(|counts| {
        let low = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let high = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|value| (value as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    })
}

/// `ImageOps.equalize`: about as many pixels of every value.
pub fn equalized(pixels: &[[u8; 4]]) -> Levels {
    histogram(pixels).map(|counts| {
        let Some(last) = counts.iter().rposition(|count| *count > 0) else { return identity() };
        let step = counts[..last].iter().sum::<u32>() / 255;
        if step == 0 {
            return identity();
        }
        let mut sum = step / 2;
        counts.map(|count| {
            let level = (sum / step).min(255) as u8;
            sum += count;
            level
        })
    })
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

fn histogram(pixels: &[[u8; 4]]) -> [[u32; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in pixels {
        for (counts, value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(*value)] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greys(values: &[u8]) -> Vec<[u8; 4]> {
        values.iter().map(|v| [*v, *v, *v, 255]).collect()
    }

    #[test]
    fn an_image_of_one_colour_stays_as_it_is() {
        let one = greys(&[7; 1000]);
        assert_eq!(stretched(&one)[0], identity());
        assert_eq!(equalized(&one)[0], identity());
    }

    #[test]
    fn extremes_become_black_and_white() {
        let levels = stretched(&greys(&[50, 100, 150]))[1];
        assert_eq!([levels[50], levels[100], levels[150], levels[0], levels[255]], [0, 127, 255, 0, 255]);
    }

    #[test]
    fn posterizing_keeps_the_upper_bits() {
        let mut pixels = greys(&[0xff]);
        posterize(&mut pixels, 3);
        assert_eq!(pixels[0][0], 0xe0);
        posterize(&mut pixels, 8);
        assert_eq!(pixels[0][0], 0xe0);
        posterize(&mut pixels, 0);
        assert_eq!(pixels[0][0], 0);
    }
}
