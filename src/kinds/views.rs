use super::{Complaint, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The random views of an image, large ones first. Presets use the values of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Views {
    /// Two large views: crop scale 0.2–1; blur p 1.0 and 0.1; solarize p 0.2 on the second.
    SingleCrop {
        /// Side of both views, in pixels.
        size: u32,
    },
    /// Two large views, crop scale 0.14–1, and `count` small ones, 0.05–0.14; blur p 0.5, no solarize.
    MultiCrop {
        /// Side of the two large views, in pixels.
        size: u32,
        /// Side of the small views, in pixels.
        small: u32,
        /// Number of small views; 6 in the paper.
        #[serde(default = "six")]
        count: u32,
    },
    /// An explicit list of views. The first two are the large ones.
    Custom(Vec<View>),
}

fn six() -> u32 {
    6
}

/// How JPEG files are decoded before views are cropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decode {
    /// In full: views are bit-identical to torchvision's.
    #[default]
    Full,
    /// At 1/2, 1/4 or 1/8 of their size, by a shorter DCT, if every crop of the image still has at least as many pixels
    /// as its view. Faster if images are more than twice as large as views, but the pixels differ slightly.
    Scaled,
}

/// How one random view is drawn, in this order: crop, jitter, grey, blur, solarize, flip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Side, in pixels.
    pub size: u32,
    /// Area of the crop as a fraction of the image, drawn uniformly; aspect ratio log-uniform in 3/4 to 4/3.
    pub scale: (f64, f64),
    /// Strengths of the colour jitter.
    #[serde(default)]
    pub jitter: Jitter,
    /// Probability of the jitter.
    #[serde(default)]
    pub jitter_p: f64,
    /// Probability of conversion to grey.
    #[serde(default)]
    pub grey_p: f64,
    /// Probability of a Gaussian blur with σ uniform in 0.1 to 2 (pixels, PIL's radius).
    #[serde(default)]
    pub blur_p: f64,
    /// Probability of inverting all values of at least 128.
    #[serde(default)]
    pub solarize_p: f64,
    /// Probability of a horizontal flip.
    #[serde(default)]
    pub flip_p: f64,
}

/// Colour jitter as in torchvision: factors uniform in 1 ± strength (hue: ± strength turns), in random order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Brightness strength.
    pub brightness: f64,
    /// Contrast strength.
    pub contrast: f64,
    /// Saturation strength.
    pub saturation: f64,
    /// Hue strength, at most 0.5.
    pub hue: f64,
}

impl Views {
    /// The explicit list of views. The first two are the large ones.
    pub fn list(&self) -> Vec<View> {
        let jitter = |saturation| Jitter { brightness: 0.4, contrast: 0.4, saturation, hue: 0.1 };
        match self {
            Views::SingleCrop { size } => {
                let first = View {
                    size: *size,
                    scale: (0.2, 1.0),
                    jitter: jitter(0.2),
                    jitter_p: 0.8,
                    grey_p: 0.2,
                    blur_p: 1.0,
                    solarize_p: 0.0,
                    flip_p: 0.5,
                };
                let second = View { blur_p: 0.1, solarize_p: 0.2, ..first.clone() };
                vec![first, second]
            }
            Views::MultiCrop { size, small, count } => {
                let large = View {
                    size: *size,
                    scale: (0.14, 1.0),
                    jitter: jitter(0.4),
                    jitter_p: 0.8,
                    grey_p: 0.2,
                    blur_p: 0.5,
                    solarize_p: 0.0,
                    flip_p: 0.5,
                };
                let small = View { size: *small, scale: (0.05, 0.14), ..large.clone() };
                let mut views = vec![large.clone(), large];
                views.extend(vec![small; *count as usize]);
                views
            }
            Views::Custom(views) => views.clone(),
        }
    }

    /// Rejects fewer than two views, sizes of zero and fractions outside 0 to 1.
    pub fn check(&self) -> Result<(), Complaint> {
        let views = self.list();
        ensure(views.len() >= 2, "views", format!("has {} view(s); the method compares at least two", views.len()))?;
        ensure(
            views[0].size == views[1].size,
            "views",
            "the first two views, the large ones, must have the same size",
        )?;
        for (i, v) in views.iter().enumerate() {
            let at = |field: &str| format!("views (view {i}): {field}");
            ensure((8..=4096).contains(&v.size), &at("size"), format!("is {}; give 8 to 4096 pixels", v.size))?;
            let (low, high) = v.scale;
            ensure(
                0.0 < low && low <= high && high <= 1.0,
                &at("scale"),
                format!("is ({low}, {high}); give 0 < low ≤ high ≤ 1"),
            )?;
            for (name, p) in [
                ("jitter_p", v.jitter_p),
                ("grey_p", v.grey_p),
                ("blur_p", v.blur_p),
                ("solarize_p", v.solarize_p),
                ("flip_p", v.flip_p),
            ] {
                ensure((0.0..=1.0).contains(&p), &at(name), format!("is {p}; a probability is 0 to 1"))?;
            }
            let j = v.jitter;
            ensure((0.0..=0.5).contains(&j.hue), &at("jitter.hue"), format!("is {}; give 0 to 0.5", j.hue))?;
            for (name, s) in [("brightness", j.brightness), ("contrast", j.contrast), ("saturation", j.saturation)] {
                ensure((0.0..=1.0).contains(&s), &at(&format!("jitter.{name}")), format!("is {s}; give 0 to 1"))?;
            }
        }
        Ok(())
    }
}
