//! Random views: drawing their parameters (same distributions as torchvision's transforms) and applying them to an
//! image.

use super::{
    blur, colour,
    colour::Pointwise,
    raster::Raster,
    resample::{self, Region, resample},
};
use caco_kinds::{Filter, Jitter, View};
use caco_measure::rng::Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The purpose for which views are drawn unless a stage has its own.
pub const VIEW: &str = "view";
/// Aspect ratios of crops, width to height: log-uniform between these.
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// σ of the blur, pixels: uniform between these.
const SIGMA: (f64, f64) = (0.1, 2.0);
/// Attempts to draw a crop that fits, before falling back to the largest central crop.
const TRIES: usize = 10;
const SOLARIZE_FROM: u8 = 128;

/// One step of the colour jitter, with its factor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// `adjust_brightness`.
    Brightness(f64),
    /// `adjust_contrast`.
    Contrast(f64),
    /// `adjust_saturation`.
    Saturation(f64),
    /// `adjust_hue`, in turns.
    Hue(f64),
}

/// The parameters drawn for one view, in the order of application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// Side of the result, in pixels.
    pub size: usize,
    /// The crop that is resized to it.
    pub crop: Region,
    /// The jitter steps in the order drawn; empty if the jitter is skipped.
    pub jitter: Vec<Step>,
    /// Whether it is converted to grey.
    pub grey: bool,
    /// σ of the blur, if any.
    pub sigma: Option<f64>,
    /// Whether values of at least 128 are inverted.
    pub solarize: bool,
    /// Whether it is flipped horizontally.
    pub flip: bool,
}

impl Drawn {
    /// What a stage with this seed draws in this epoch for each view of a sample of `width` × `height` pixels. Every
    /// operation of every view draws from a stream of its own, named by `purpose`, the view and the operation.
    pub fn of_sample(
        views: &[View],
        purpose: &str,
        seed: u64,
        epoch: u64,
        sample: u32,
        (width, height): (usize, usize),
    ) -> Vec<Drawn> {
        let draw = |(number, view)| {
            let stream =
                |operation: &str| Rng::new(seed, &format!("{purpose} {number} {operation}"), epoch, sample.into());
            Drawn::new(view, width, height, &stream)
        };
        views.iter().enumerate().map(draw).collect()
    }

    /// Draws a view of an image of `width` × `height` pixels. `stream` returns the random numbers of an operation.
    fn new(view: &View, width: usize, height: usize, stream: &dyn Fn(&str) -> Rng) -> Drawn {
        let crop = draw_crop(view.scale, width, height, &mut stream("crop"));
        let mut rng = stream("jitter");
        let jitter = if rng.chance(view.jitter_p) { draw_jitter(view.jitter, &mut rng) } else { vec![] };
        let grey = stream("grey").chance(view.grey_p);
        let mut rng = stream("blur");
        let sigma = rng.chance(view.blur_p).then(|| rng.range(SIGMA.0, SIGMA.1));
        let (solarize, flip) = (stream("solarize").chance(view.solarize_p), stream("flip").chance(view.flip_p));
        Drawn { size: view.size as usize, crop, jitter, grey, sigma, solarize, flip }
    }

    /// The largest factor (8, 4, 2 or 1) by which the image can be shrunk so that the crop still has at least as many
    /// pixels as the view.
    pub fn scale(&self) -> u32 {
        let room = self.crop.width.min(self.crop.height) / self.size.max(1);
        [8, 4, 2].into_iter().find(|scale| *scale <= room).unwrap_or(1) as u32
    }

    /// The same view of `image`, which is the original at 1/`scale`. Crop edges that fall between pixels move to the
    /// nearest pixel.
    pub fn scaled(&self, scale: u32, image: &Raster) -> Cow<'_, Drawn> {
        if scale == 1 {
            return Cow::Borrowed(self);
        }
        let near = |at: usize, end: usize| ((at as f64 / f64::from(scale)).round() as usize).min(end);
        let Region { left, top, width, height } = self.crop;
        let (right, bottom) = (near(left + width, image.width), near(top + height, image.height));
        let (left, top) = (near(left, right - 1), near(top, bottom - 1));
        Cow::Owned(Drawn { crop: Region { left, top, width: right - left, height: bottom - top }, ..self.clone() })
    }
}

/// torchvision's `RandomResizedCrop.get_params`.
fn draw_crop(scale: (f64, f64), width: usize, height: usize, rng: &mut Rng) -> Region {
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
    central_crop(width, height)
}

/// The largest central crop whose aspect ratio is allowed.
fn central_crop(width: usize, height: usize) -> Region {
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

/// torchvision's `ColorJitter.get_params`; a step of strength 0 is left out.
fn draw_jitter(jitter: Jitter, rng: &mut Rng) -> Vec<Step> {
    let order = rng.permutation(4);
    let mut factor = |strength: f64| rng.range((1.0 - strength).max(0.0), 1.0 + strength);
    let steps = [
        (jitter.brightness, Step::Brightness(factor(jitter.brightness))),
        (jitter.contrast, Step::Contrast(factor(jitter.contrast))),
        (jitter.saturation, Step::Saturation(factor(jitter.saturation))),
        (jitter.hue, Step::Hue(rng.range(-jitter.hue, jitter.hue))),
    ];
    order.into_iter().map(|i| steps[i as usize]).filter(|(strength, _)| *strength > 0.0).map(|(_, step)| step).collect()
}

/// Applies views, reusing its buffers between them.
#[derive(Default)]
pub struct Augmenter {
    scratch: resample::Scratch,
    view: Raster,
    spare: Raster,
}

impl Augmenter {
    /// Writes the drawn view of `image` as `size * size * 3` bytes of RGB.
    pub fn apply(&mut self, drawn: &Drawn, image: &Raster, out: &mut [u8]) {
        self.cut(drawn, image);
        self.recolour(drawn);
        self.blur(drawn);
        self.finish(drawn, out);
    }

    pub(super) fn cut(&mut self, drawn: &Drawn, image: &Raster) {
        let size = (drawn.size, drawn.size);
        resample(image, drawn.crop, size, Region::whole(size), Filter::Bilinear, &mut self.scratch, &mut self.view);
    }

    /// Jitter and grey in as few passes as possible: only the contrast has to see the whole image first.
    pub(super) fn recolour(&mut self, drawn: &Drawn) {
        let pixels = &mut self.view.pixels;
        let mut pending = Vec::with_capacity(5);
        for step in &drawn.jitter {
            let operation = match *step {
                Step::Brightness(factor) => Pointwise::Brightness(factor as f32),
                Step::Saturation(factor) => Pointwise::Saturation(factor as f32),
                Step::Hue(factor) => Pointwise::Hue(colour::hue_step(factor)),
                Step::Contrast(factor) => {
                    colour::apply(&pending, pixels);
                    pending.clear();
                    Pointwise::Contrast(factor as f32, colour::mean_grey(pixels))
                }
            };
            pending.push(operation);
        }
        if drawn.grey {
            pending.push(Pointwise::Grey);
        }
        colour::apply(&pending, pixels);
    }

    pub(super) fn blur(&mut self, drawn: &Drawn) {
        if let Some(sigma) = drawn.sigma {
            blur::gaussian(&mut self.view, sigma, &mut self.spare);
        }
    }

    pub(super) fn finish(&mut self, drawn: &Drawn, out: &mut [u8]) {
        if drawn.solarize {
            colour::apply(&[Pointwise::Solarize(SOLARIZE_FROM)], &mut self.view.pixels);
        }
        self.view.write_rgb(drawn.flip, out);
    }

    /// Resizes the short side of `image` to `resize` pixels and writes the central `crop` × `crop` as `crop * crop * 3`
    /// bytes of RGB: torchvision's `Resize` and `CenterCrop`. `resize` must not be below `crop`.
    pub fn centre(&mut self, image: &Raster, resize: usize, crop: usize, filter: Filter, out: &mut [u8]) {
        let whole = (image.width, image.height);
        let size = resample::short_side(whole, resize);
        let start = |side: usize| ((side - crop) as f64 / 2.0).round_ties_even() as usize;
        let window = Region { left: start(size.0), top: start(size.1), width: crop, height: crop };
        resample(image, Region::whole(whole), size, window, filter, &mut self.scratch, &mut self.view);
        self.view.write_rgb(false, out);
    }
}
