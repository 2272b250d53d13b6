use super::{Canvas, Complaint, Kind, Rng, ensure, probability};
use crate::colour;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes the colours: torchvision's `ColorJitter`. Factors are uniform in 1 ± strength (hue: ± strength turns) and are
/// applied in random order. From Howard 2013, "Some improvements on deep convolutional neural network based image
/// classification", arXiv 1312.5402.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Brightness strength, 0 to 1.
    #[serde(default)]
    pub brightness: f64,
    /// Contrast strength, 0 to 1.
    #[serde(default)]
    pub contrast: f64,
    /// Saturation strength, 0 to 1.
    #[serde(default)]
    pub saturation: f64,
    /// Hue strength, in turns, at most 0.5.
    #[serde(default)]
    pub hue: f64,
    /// Probability.
    pub p: f64,
}

/// One change, with its factor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// `adjust_brightness`.
    Brightness(f64),
    /// `adjust_contrast`.
    Contrast(f64),
    /// `adjust_saturation`.
    Saturation(f64),
    /// `adjust_hue`, in turns.
    Hue(f64),
}

impl Kind for Jitter {
    /// The changes in the order drawn.
    type Drawn = Vec<Change>;

    fn check(&self) -> Result<(), Complaint> {
        let strengths = [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (name, strength) in strengths {
            ensure((0.0..=1.0).contains(&strength), name, format!("is {strength}; give 0 to 1"))?;
        }
        ensure((0.0..=0.5).contains(&self.hue), "hue", format!("is {}; give 0 to 0.5", self.hue))?;
        probability(self.p)
    }

    fn draw(&self, _: usize, rng: &mut Rng) -> Option<Vec<Change>> {
        rng.chance(self.p).then(|| draw(self, rng))
    }

    fn apply(changes: &Vec<Change>, canvas: &mut Canvas) {
        for change in changes {
            match *change {
                Change::Brightness(factor) => canvas.pixelwise(move |block| colour::brightness(block, factor)),
                Change::Saturation(factor) => canvas.pixelwise(move |block| colour::saturation(block, factor)),
                Change::Hue(turns) => canvas.pixelwise(move |block| colour::hue(block, turns)),
                Change::Contrast(factor) => {
                    let mean = colour::mean_grey(canvas.pixels());
                    canvas.pixelwise(move |block| colour::contrast(block, mean, factor));
                }
            }
        }
    }
}

/// torchvision's `ColorJitter.get_params`; a change of strength 0 is left out.
fn draw(jitter: &Jitter, rng: &mut Rng) -> Vec<Change> {
    let order = rng.permutation(4);
    let mut factor = |strength: f64| rng.range((1.0 - strength).max(0.0), 1.0 + strength);
    let changes = [
        (jitter.brightness, Change::Brightness(factor(jitter.brightness))),
        (jitter.contrast, Change::Contrast(factor(jitter.contrast))),
        (jitter.saturation, Change::Saturation(factor(jitter.saturation))),
        (jitter.hue, Change::Hue(rng.range(-jitter.hue, jitter.hue))),
    ];
    let drawn = order.into_iter().map(|i| changes[i as usize]);
    drawn.filter(|(strength, _)| *strength > 0.0).map(|(_, change)| change).collect()
}
