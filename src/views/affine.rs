//! Affine maps with the nearest pixel, as in Pillow (`affine_fixed` in `src/libImaging/Geometry.c`): coordinates in 16.16
//! fixed point. The matrices are torchvision's, of `_get_inverse_affine_matrix`, and Pillow's, of `Image.rotate`.

use super::raster::Raster;
use std::f64::consts::PI;

/// Where a pixel of the result comes from: (a x + b y + c, d x + e y + f).
pub type Map = [f64; 6];

/// Moves the image by whole pixels to the right and down.
pub fn translation(right: f64, down: f64) -> Map {
    [1.0, 0.0, -right.trunc(), 0.0, 1.0, -down.trunc()]
}

/// Moves every row by `along_rows` pixels to the left for each row above it, every column by `along_columns` pixels up for
/// each column on its left. One of them is 0.
pub fn shear(along_rows: f64, along_columns: f64) -> Map {
    // By way of degrees, as torchvision has it.
    let angle = |slope: f64| (libm::atan(slope) * (180.0 / PI)) * (PI / 180.0);
    let (x, y) = (angle(along_rows), angle(along_columns));
    let (sin, cos) = (libm::sin(-y), libm::cos(-y));
    let a = cos / libm::cos(y);
    let b = -(a * libm::tan(x));
    let c = sin / libm::cos(y);
    let d = 1.0 - c * libm::tan(x);
    [d, -b, 0.0, -c, a, 0.0]
}

/// Turns an image of this width and height around its centre, counterclockwise.
pub fn rotation(degrees: f64, (width, height): (usize, usize)) -> Map {
    let angle = -(degrees.rem_euclid(360.0) * (PI / 180.0));
    let (cos, sin) = (to_15_digits(libm::cos(angle)), to_15_digits(libm::sin(angle)));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y]
}

/// Python's `round(x, 15)`.
fn to_15_digits(x: f64) -> f64 {
    format!("{x:.15}").parse().expect("a printed number")
}

/// Writes the image that `map` makes of `image`, of the same size and black where nothing comes from it.
pub fn apply(map: &Map, image: &Raster, out: &mut Raster) {
    let [a, b, c, d, e, f] = *map;
    let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    let (across, down) = ((fixed(a), fixed(d)), (fixed(b), fixed(e)));
    let (mut x, mut y) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    out.resize(image.width, image.height);
    for row in out.pixels.chunks_exact_mut(image.width.max(1)) {
        let (mut from_x, mut from_y) = (x, y);
        for pixel in row {
            let inside = |at: i64, end: usize| usize::try_from(at >> 16).ok().filter(|at| *at < end);
            *pixel = match (inside(from_x, image.width), inside(from_y, image.height)) {
                (Some(x), Some(y)) => image.pixels[y * image.width + x],
                _ => [0, 0, 0, 255],
            };
            from_x += across.0;
            from_y += across.1;
        }
        x += down.0;
        y += down.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(map: Map) -> Vec<u8> {
        let rgb: Vec<u8> = (1..=9).flat_map(|v| [v; 3]).collect();
        let mut out = Raster::default();
        apply(&map, &Raster::from_rgb(3, 3, &rgb), &mut out);
        out.pixels.iter().map(|p| p[0]).collect()
    }

    #[test]
    fn pixels_move_as_the_names_say() {
        assert_eq!(moved(translation(1.9, 0.0)), [0, 1, 2, 0, 4, 5, 0, 7, 8]);
        assert_eq!(moved(translation(0.0, -1.0)), [4, 5, 6, 7, 8, 9, 0, 0, 0]);
        assert_eq!(moved(rotation(90.0, (3, 3))), [3, 6, 9, 2, 5, 8, 1, 4, 7]);
        assert_eq!(moved(rotation(0.0, (3, 3))), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(moved(shear(0.0, 0.0)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(moved(shear(0.9, 0.0)), [1, 2, 3, 5, 6, 0, 9, 0, 0]);
        assert_eq!(moved(shear(0.0, 0.9)), [1, 5, 9, 4, 8, 0, 7, 0, 0]);
    }
}
