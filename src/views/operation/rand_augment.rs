use super::{Canvas, Complaint, Kind, Rng, ensure};
use crate::{affine, colour, levels, sharpen::sharpen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Applies some of 14 changes with one common magnitude: torchvision's `RandAugment`, with nearest pixels and black where
/// the image ends. The changes are Identity, ShearX, ShearY, TranslateX, TranslateY, Rotate, Brightness, Color, Contrast,
/// Sharpness, Posterize, Solarize, AutoContrast and Equalize. From Cubuk et al. 2020, "RandAugment: Practical automated
/// data augmentation with a reduced search space", arXiv 1909.13719.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandAugment {
    /// Number of changes, drawn with replacement; 1 to 16.
    #[serde(default = "n")]
    pub n: u32,
    /// Which magnitude they have: 0 to `bins` − 1.
    #[serde(default = "magnitude")]
    pub magnitude: u32,
    /// Number of magnitudes into which the range of a change is divided, 2 to 1000. The first is none; the last is a shear
    /// of 0.3, a translation by 150/331 of the side, a rotation by 30 degrees, a factor of 1 ± 0.9, 4 bits, or all values
    /// inverted.
    #[serde(default = "bins")]
    pub bins: u32,
}

fn n() -> u32 {
    2
}
fn magnitude() -> u32 {
    9
}
fn bins() -> u32 {
    31
}

/// A change, with its magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// None.
    Identity,
    /// By how many columns a row moves to the left for each row above it.
    ShearX(f64),
    /// By how many rows a column moves up for each column on its left.
    ShearY(f64),
    /// Columns, truncated.
    TranslateX(f64),
    /// Rows, truncated.
    TranslateY(f64),
    /// Degrees, counterclockwise.
    Rotate(f64),
    /// `adjust_brightness` by 1 + this, as the next three.
    Brightness(f64),
    /// `adjust_saturation`.
    Color(f64),
    /// `adjust_contrast`.
    Contrast(f64),
    /// `adjust_sharpness`.
    Sharpness(f64),
    /// The bits that are kept.
    Posterize(u8),
    /// The threshold as a fraction of 255.
    Solarize(f64),
    /// `autocontrast`.
    AutoContrast,
    /// `equalize`.
    Equalize,
}

impl Kind for RandAugment {
    type Drawn = Vec<Change>;

    fn check(&self) -> Result<(), Complaint> {
        ensure((1..=16).contains(&self.n), "n", format!("is {}; give 1 to 16", self.n))?;
        ensure((2..=1000).contains(&self.bins), "bins", format!("is {}; give 2 to 1000", self.bins))?;
        let message = format!("is {}; give 0 to below the bins, {}", self.magnitude, self.bins);
        ensure(self.magnitude < self.bins, "magnitude", message)
    }

    fn draw(&self, size: usize, rng: &mut Rng) -> Option<Vec<Change>> {
        Some((0..self.n).map(|_| self.draw_one(size, rng)).collect())
    }

    fn apply(changes: &Vec<Change>, canvas: &mut Canvas) {
        changes.iter().for_each(|change| change.apply(canvas));
    }
}

impl RandAugment {
    fn draw_one(&self, size: usize, rng: &mut Rng) -> Change {
        let kind = rng.below(14);
        // Of every change, so that the draws of the next one do not depend on this one's kind.
        let sign = if rng.chance(0.5) { -1.0 } else { 1.0 };
        let signed = |end: f64| sign * self.between(0.0, end);
        match kind {
            0 => Change::Identity,
            1 => Change::ShearX(signed(0.3)),
            2 => Change::ShearY(signed(0.3)),
            3 => Change::TranslateX(signed(150.0 / 331.0 * size as f64)),
            4 => Change::TranslateY(signed(150.0 / 331.0 * size as f64)),
            5 => Change::Rotate(signed(30.0)),
            6 => Change::Brightness(signed(0.9)),
            7 => Change::Color(signed(0.9)),
            8 => Change::Contrast(signed(0.9)),
            9 => Change::Sharpness(signed(0.9)),
            10 => Change::Posterize(self.bits()),
            11 => Change::Solarize(self.between(1.0, 0.0)),
            12 => Change::AutoContrast,
            _ => Change::Equalize,
        }
    }

    /// The magnitude of a change that goes from `start` to `end`, in single precision as in `torch.linspace`.
    fn between(&self, start: f64, end: f64) -> f64 {
        let (start, end, last) = (start as f32, end as f32, self.bins - 1);
        let step = (end - start) / last as f32;
        // The second half is counted from the end, which is then exact.
        let value = match self.magnitude < self.bins / 2 {
            true => start + step * self.magnitude as f32,
            false => end - step * (last - self.magnitude) as f32,
        };
        value.into()
    }

    fn bits(&self) -> u8 {
        let less = self.magnitude as f32 / ((self.bins - 1) as f32 / 4.0);
        (8.0 - less).round_ties_even() as u8
    }
}

impl Change {
    fn apply(self, canvas: &mut Canvas) {
        match self {
            Change::Identity => {}
            Change::ShearX(slope) => transform(canvas, |_| affine::shear(slope, 0.0)),
            Change::ShearY(slope) => transform(canvas, |_| affine::shear(0.0, slope)),
            Change::TranslateX(pixels) => transform(canvas, |_| affine::translation(pixels, 0.0)),
            Change::TranslateY(pixels) => transform(canvas, |_| affine::translation(0.0, pixels)),
            Change::Rotate(degrees) => transform(canvas, |size| affine::rotation(degrees, size)),
            Change::Brightness(more) => canvas.pixelwise(move |block| colour::brightness(block, 1.0 + more)),
            Change::Color(more) => canvas.pixelwise(move |block| colour::saturation(block, 1.0 + more)),
            Change::Contrast(more) => {
                let mean = colour::mean_grey(canvas.pixels());
                canvas.pixelwise(move |block| colour::contrast(block, mean, 1.0 + more));
            }
            Change::Sharpness(more) => {
                let (view, spare) = canvas.raster();
                sharpen(view, 1.0 + more, spare);
                std::mem::swap(view, spare);
            }
            Change::Posterize(bits) => canvas.pixelwise(move |block| levels::posterize(block, bits)),
            Change::Solarize(fraction) => {
                let threshold = (255.0 * fraction).ceil() as u8;
                canvas.pixelwise(move |block| colour::solarize(block, threshold));
            }
            Change::AutoContrast => {
                let levels = levels::stretched(canvas.pixels());
                canvas.pixelwise(move |block| levels::apply(&levels, block));
            }
            Change::Equalize => {
                let levels = levels::equalized(canvas.pixels());
                canvas.pixelwise(move |block| levels::apply(&levels, block));
            }
        }
    }
}

/// Applies the affine map of an image of this width and height.
fn transform(canvas: &mut Canvas, map: impl FnOnce((usize, usize)) -> affine::Map) {
    let (view, spare) = canvas.raster();
    affine::apply(&map((view.width, view.height)), view, spare);
    std::mem::swap(view, spare);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(magnitude: u32, bins: u32) -> RandAugment {
        RandAugment { n: 2, magnitude, bins }
    }

    #[test]
    fn magnitudes_are_torchvisions() {
        // float(torch.linspace(0.0, 0.3, 31)[9]) and so on.
        assert_eq!(with(9, 31).between(0.0, 0.3), 0.09000000357627869);
        assert_eq!(with(30, 31).between(0.0, 0.3), 0.30000001192092896);
        assert_eq!(with(9, 31).between(1.0, 0.0), 0.699999988079071);
        let bits: Vec<u8> = (0..31).map(|magnitude| with(magnitude, 31).bits()).collect();
        assert_eq!(bits, [8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 6, 6, 5, 5, 5, 5, 5, 5, 5, 5, 4, 4, 4, 4]);
    }

    #[test]
    fn every_change_is_drawn_with_both_signs() {
        let mut rng = Rng::new(0, "rand_augment", 0, 0);
        let drawn: Vec<Change> = (0..500).flat_map(|_| with(9, 31).draw(32, &mut rng).unwrap()).collect();
        let kinds: std::collections::BTreeSet<String> =
            drawn.iter().map(|change| format!("{change:?}").split(['(', '.']).next().unwrap().to_string()).collect();
        assert_eq!(kinds.len(), 14, "{kinds:?}");
        for sign in [-1.0, 1.0] {
            assert!(drawn.iter().any(|change| matches!(change, Change::Rotate(angle) if angle.signum() == sign)));
        }
    }
}
