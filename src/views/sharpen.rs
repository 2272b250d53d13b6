//! `ImageEnhance.Sharpness`, as in Pillow (`src/libImaging/Filter.c`): a blend of the image and the smoothed image.

use super::{colour::blend, raster::Raster, vectorise::vectorised};

/// Writes the image, moved towards (below 1) or away from its smoothed version, to `out`. The outermost pixels are not
/// smoothed.
pub fn sharpen(image: &Raster, factor: f64, out: &mut Raster) {
    let (width, height) = (image.width, image.height);
    out.width = width;
    out.height = height;
    out.pixels.clear();
    out.pixels.extend_from_slice(&image.pixels);
    if width < 3 {
        return;
    }
    for y in 1..height.saturating_sub(1) {
        let lines = [image.row(y - 1), image.row(y), image.row(y + 1)];
        inside(lines, factor as f32, &mut out.pixels[y * width + 1..(y + 1) * width - 1]);
    }
}

vectorised! {
/// A row without its ends. The kernel is 1 around 5, divided by 13. Pillow adds in single precision, which rounds as the
/// exact sum does: that is at least 1/26 away from where the result changes.
fn inside(lines: [&[[u8; 4]]; 3], factor: f32, out: &mut [[u8; 4]]) {
    let out = out.as_flattened_mut();
    let count = out.len();
    let [above, here, below] = lines.map(|line| &line.as_flattened()[..count + 8]);
    for i in 0..count {
        let three = |line: &[u8]| i32::from(line[i]) + i32::from(line[i + 4]) + i32::from(line[i + 8]);
        let centre = i32::from(here[i + 4]);
        let sum = three(above) + three(here) + three(below) + 4 * centre;
        let smooth = (2 * sum + 13) / 26;
        out[i] = blend(smooth, centre, factor) as u8;
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_becomes_sharper_or_smoother() {
        let rgb: Vec<u8> = (0..25).flat_map(|i| if i % 5 < 2 { [50; 3] } else { [150; 3] }).collect();
        let (image, mut out) = (Raster::from_rgb(5, 5, &rgb), Raster::default());
        let line = |out: &Raster| out.row(2).iter().map(|p| p[0]).collect::<Vec<_>>();
        sharpen(&image, 1.0, &mut out);
        assert_eq!(out, image);
        sharpen(&image, 0.0, &mut out);
        assert_eq!(line(&out), [50, 73, 127, 150, 150]);
        sharpen(&image, 2.0, &mut out);
        assert_eq!(line(&out), [50, 27, 173, 150, 150]);
    }
}
