use super::*;

/// Evaluates frozen features of unit length by weighted k-nearest-neighbour accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Knn {
    /// A features stage: the images that vote.
    pub train: String,
    /// A features stage: the images to classify.
    pub test: String,
    /// Number of neighbours.
    #[serde(default = "k")]
    pub k: u32,
    /// Votes are weighted by exp(cosine / temperature).
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Fraction of the training images that vote, drawn by `seed`; 1 means all.
    #[serde(default = "share")]
    pub share: f64,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Seed for drawing that fraction.
    #[serde(default)]
    pub seed: u64,
}

pub(super) fn k() -> u32 {
    20
}
pub(super) fn temperature() -> f64 {
    0.2
}
pub(super) fn share() -> f64 {
    0.2
}

impl Kind for Knn {
    const NAME: &'static str = "knn";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const OUTPUTS: &'static [Output] = &[output("predictions", "predictions.safetensors")];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] = &[("determinism", r#""Fast""#)];
    const SOURCES: &'static [&'static str] = &["train", "test"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input::output("train", &self.train, "features"), Input::output("test", &self.test, "features")]
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure(self.k >= 1, "k", "is 0; give at least 1")?;
        ensure(self.temperature > 0.0, "temperature", format!("is {}; give a positive number", self.temperature))?;
        ensure(self.share > 0.0 && self.share <= 1.0, "share", format!("is {}; give above 0, at most 1", self.share))
    }
    fn is_portable(&self) -> bool {
        self.determinism == Determinism::Portable
    }
}
