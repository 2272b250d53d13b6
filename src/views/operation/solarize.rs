use super::{Canvas, Complaint, Kind, Rng, probability};
use crate::colour;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Inverts the values from a threshold on: torchvision's `RandomSolarize`. From Grill et al. 2020, "Bootstrap your own
/// latent", arXiv 2006.07733.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Solarize {
    /// The lowest value that is inverted, 0 to 255.
    #[serde(default = "threshold")]
    pub threshold: u8,
    /// Probability.
    pub p: f64,
}

fn threshold() -> u8 {
    128
}

impl Kind for Solarize {
    /// The threshold.
    type Drawn = u8;

    fn check(&self) -> Result<(), Complaint> {
        probability(self.p)
    }

    fn draw(&self, _: usize, rng: &mut Rng) -> Option<u8> {
        rng.chance(self.p).then_some(self.threshold)
    }

    fn apply(&threshold: &u8, canvas: &mut Canvas) {
        canvas.pixelwise(move |block| colour::solarize(block, threshold));
    }
}
