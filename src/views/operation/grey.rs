use super::{Canvas, Complaint, Kind, Rng, probability};
use crate::colour;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Turns the colours to grey: torchvision's `RandomGrayscale`, with the luma of ITU-R BT.601. From Wu et al. 2018,
/// "Unsupervised feature learning via non-parametric instance discrimination", arXiv 1805.01978.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grey {
    /// Probability.
    pub p: f64,
}

impl Kind for Grey {
    type Drawn = ();

    fn check(&self) -> Result<(), Complaint> {
        probability(self.p)
    }

    fn draw(&self, _: usize, rng: &mut Rng) -> Option<()> {
        rng.chance(self.p).then_some(())
    }

    fn apply((): &(), canvas: &mut Canvas) {
        canvas.pixelwise(colour::grey);
    }
}
