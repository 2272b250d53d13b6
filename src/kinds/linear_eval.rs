use super::*;

/// Linear evaluation: a linear classifier on a frozen backbone in eval mode, trained on augmented images by SGD with
/// LARC; the last epoch is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearEval {
    /// The stage whose encoder is evaluated.
    pub encoder: String,
    /// An index stage: the training images.
    pub train: String,
    /// An index stage: the test images.
    pub test: String,
    /// Side of the training crops and of the test centre crop, in pixels.
    pub size: u32,
    /// Short side to which test images are resized, in pixels.
    pub resize: u32,
    /// Area of the training crops as a fraction of the image.
    #[serde(default = "scale")]
    pub scale: (f64, f64),
    /// How JPEG files are decoded for the training crops.
    #[serde(default)]
    pub decode: Decode,
    /// Passes over the training images.
    #[serde(default = "epochs")]
    pub epochs: u32,
    /// Images per step.
    #[serde(default = "batch")]
    pub batch: u32,
    /// Learning rate per 256 images.
    #[serde(default = "rate")]
    pub rate: f64,
    /// SGD momentum.
    #[serde(default = "super::init_bank::momentum")]
    pub momentum: f64,
    /// LARC trust coefficient.
    #[serde(default = "super::init_bank::trust")]
    pub trust: f64,
    /// Floating-point precision of the backbone.
    #[serde(default)]
    pub precision: Precision,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Seed of the classifier's initial weights, the order and the crops.
    #[serde(default)]
    pub seed: u64,
}

fn scale() -> (f64, f64) {
    (0.08, 1.0)
}
fn epochs() -> u32 {
    100
}
fn batch() -> u32 {
    4096
}
fn rate() -> f64 {
    0.025
}

impl Kind for LinearEval {
    const NAME: &'static str = "linear_eval";
    const VERSION: u32 = 3;
    const DEVICE: bool = true;
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const OUTPUTS: &'static [Output] =
        &[output("classifier", "classifier.safetensors"), output("predictions", "predictions.safetensors")];
    const SOURCES: &'static [&'static str] = &["encoder", "train", "test"];

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::output("encoder", &self.encoder, "encoder")];
        inputs.extend(Input::index("train", &self.train));
        inputs.extend(Input::index("test", &self.test));
        inputs
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure((8..=4096).contains(&self.size), "size", format!("is {}; give 8 to 4096 pixels", self.size))?;
        let small = format!("is {}; give at least the crop's {}", self.resize, self.size);
        ensure(self.resize >= self.size && self.resize <= 8192, "resize", small)?;
        let (low, high) = self.scale;
        ensure(
            0.0 < low && low <= high && high <= 1.0,
            "scale",
            format!("is ({low}, {high}); give 0 < low ≤ high ≤ 1"),
        )?;
        ensure(self.epochs >= 1, "epochs", "is 0; give at least 1")?;
        ensure(self.batch >= 1, "batch", "is 0; give at least 1")?;
        ensure(self.rate > 0.0 && self.rate.is_finite(), "rate", format!("is {}; give a positive number", self.rate))?;
        self.determinism.check(self.precision)
    }

    fn is_portable(&self) -> bool {
        self.determinism == Determinism::Portable
    }

    /// Every process computes the features of whole batches.
    fn most_processes(&self) -> u32 {
        MOST_PROCESSES
    }
}
