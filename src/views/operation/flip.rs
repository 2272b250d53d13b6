use super::{Canvas, Complaint, Kind, Rng, probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Swaps left and right: torchvision's `RandomHorizontalFlip`. From Krizhevsky et al. 2012, "ImageNet classification
/// with deep convolutional neural networks", NeurIPS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// Probability.
    pub p: f64,
}

impl Kind for Flip {
    type Drawn = ();

    fn check(&self) -> Result<(), Complaint> {
        probability(self.p)
    }

    fn draw(&self, _: usize, rng: &mut Rng) -> Option<()> {
        rng.chance(self.p).then_some(())
    }

    fn apply((): &(), canvas: &mut Canvas) {
        canvas.flip();
    }
}
