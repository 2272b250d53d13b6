use super::{Canvas, Complaint, Kind, Rng, ensure, probability};
use crate::blur;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Gaussian blur: Pillow's `ImageFilter.GaussianBlur`. From Chen et al. 2020, "A simple framework for contrastive
/// learning of visual representations", arXiv 2002.05709.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// Standard deviation σ in pixels, drawn uniformly between these: Pillow's `radius`.
    #[serde(default = "sigma")]
    pub sigma: (f64, f64),
    /// Probability.
    pub p: f64,
}

fn sigma() -> (f64, f64) {
    (0.1, 2.0)
}

impl Kind for Blur {
    /// σ, in pixels.
    type Drawn = f64;

    fn check(&self) -> Result<(), Complaint> {
        let (low, high) = self.sigma;
        let within = 0.0 <= low && low <= high && high <= 100.0;
        ensure(within, "sigma", format!("is ({low}, {high}); give 0 ≤ low ≤ high ≤ 100 pixels"))?;
        probability(self.p)
    }

    fn draw(&self, _: usize, rng: &mut Rng) -> Option<f64> {
        rng.chance(self.p).then(|| rng.range(self.sigma.0, self.sigma.1))
    }

    fn apply(sigma: &f64, canvas: &mut Canvas) {
        let (view, spare) = canvas.raster();
        blur::gaussian(view, *sigma, spare);
    }
}
