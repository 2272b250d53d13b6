use super::{Complaint, ensure};
use crate::resample::Region;
use caco_measure::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Aspect ratios, width to height: log-uniform between these.
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Attempts to draw a crop that fits, before falling back to the largest central one.
const TRIES: usize = 10;

/// Cuts out a random part of the image and resizes it, bilinearly, to a square: torchvision's `RandomResizedCrop`. The
/// aspect ratio is log-uniform in 3/4 to 4/3. From Szegedy et al. 2015, "Going deeper with convolutions", arXiv
/// 1409.4842.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Side of the view, in pixels.
    pub size: u32,
    /// Area of the part as a fraction of the image, drawn uniformly between these.
    pub scale: (f64, f64),
}

/// What a crop draws for one view of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Side of the view, in pixels.
    pub size: usize,
    /// The part of the image that is resized to it.
    pub region: Region,
}

impl Crop {
    pub(crate) fn check(&self) -> Result<(), Complaint> {
        let (low, high) = self.scale;
        ensure((8..=4096).contains(&self.size), "size", format!("is {}; give 8 to 4096 pixels", self.size))?;
        let within = 0.0 < low && low <= high && high <= 1.0;
        ensure(within, "scale", format!("is ({low}, {high}); give 0 < low ≤ high ≤ 1"))
    }

    /// Draws for an image of `width` × `height` pixels.
    pub(crate) fn draw(&self, image: (usize, usize), rng: &mut Rng) -> Cut {
        Cut { size: self.size as usize, region: draw(self.scale, image, rng) }
    }
}

/// torchvision's `RandomResizedCrop.get_params`.
fn draw(scale: (f64, f64), (width, height): (usize, usize), rng: &mut Rng) -> Region {
    let area = (width * height) as f64;
    for _ in 0..TRIES {
        let target = area * rng.range(scale.0, scale.1);
        let aspect = rng.range(ASPECT.0.ln(), ASPECT.1.ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let mut below = |n: usize| rng.below(n as u64 + 1) as usize;
            let top = below(height - h);
            return Region { top, left: below(width - w), width: w, height: h };
        }
    }
    central(width, height)
}

/// The largest central crop whose aspect ratio is allowed.
fn central(width: usize, height: usize) -> Region {
    let aspect = width as f64 / height as f64;
    let (mut w, mut h) = (width, height);
    if aspect < ASPECT.0 {
        h = (width as f64 / ASPECT.0).round_ties_even() as usize;
    } else if aspect > ASPECT.1 {
        w = (height as f64 * ASPECT.1).round_ties_even() as usize;
    }
    // Very narrow images: torchvision would take an empty crop.
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Region { top: (height - h) / 2, left: (width - w) / 2, width: w, height: h }
}

impl Cut {
    /// The largest factor (8, 4, 2 or 1) by which the image can be shrunk so that the region still has at least as many
    /// pixels as the view.
    pub fn scale(&self) -> u32 {
        let room = self.region.width.min(self.region.height) / self.size.max(1);
        [8, 4, 2].into_iter().find(|scale| *scale <= room).unwrap_or(1) as u32
    }

    /// The same cut of an image that is the original at 1/`scale` and has these dimensions. Edges that fall between
    /// pixels move to the nearest pixel.
    pub(crate) fn scaled(self, scale: u32, image: (usize, usize)) -> Cut {
        let near = |at: usize, end: usize| ((at as f64 / f64::from(scale)).round() as usize).min(end);
        let Region { left, top, width, height } = self.region;
        let (right, bottom) = (near(left + width, image.0), near(top + height, image.1));
        let (left, top) = (near(left, right - 1), near(top, bottom - 1));
        Cut { region: Region { left, top, width: right - left, height: bottom - top }, ..self }
    }
}
