use super::*;

/// Transfer evaluation: ℓ2-regularised multinomial logistic regression by L-BFGS on frozen features; the regularisation
/// strength is chosen on a validation split, the classifier is refitted on training and validation images, and the test
/// split is evaluated once (Kornblith et al. 2019; Chen et al. 2020, appendix B.8). If images can show several classes,
/// one classifier per class is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferEval {
    /// A features stage: the training images.
    pub train: String,
    /// A features stage: the validation images. By default, a stratified fraction of the training images drawn by
    /// `seed`.
    #[serde(default)]
    pub val: Option<String>,
    /// A features stage: the test images.
    pub test: String,
    /// The metric to report.
    #[serde(default)]
    pub metric: TransferMetric,
    /// The classifier to fit.
    #[serde(default)]
    pub classifier: TransferClassifier,
    /// Number of regularisation strengths to try, log-spaced over `range`.
    #[serde(default = "strengths")]
    pub strengths: u32,
    /// Weakest and strongest regularisation λ of the objective Σ CE + λ/2 ‖weights‖².
    #[serde(default = "range")]
    pub range: (f64, f64),
    /// Fraction of the training images used for validation if there is no `val`.
    #[serde(default = "share")]
    pub val_share: f64,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Seed for drawing that fraction.
    #[serde(default)]
    pub seed: u64,
}

/// The metric of a transfer evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferMetric {
    /// Accuracy.
    #[default]
    Top1,
    /// Mean per-class accuracy.
    MeanPerClass,
    /// Mean over classes of the 11-point average precision (VOC 2007), if images can show several classes.
    Map11,
}

/// The classifier of a transfer evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferClassifier {
    /// Logistic regression.
    #[default]
    Logistic,
    /// A linear support vector machine per class, on features of unit length, each class with its own strength; for
    /// `Map11` only (the protocol of Goyal et al. 2019 for VOC 2007, except that strengths are chosen on the validation
    /// images and not by cross-validation).
    Svm,
}

fn strengths() -> u32 {
    45
}
fn range() -> (f64, f64) {
    (1e-6, 1e5)
}
fn share() -> f64 {
    0.2
}

impl Kind for TransferEval {
    const NAME: &'static str = "transfer_eval";
    const VERSION: u32 = 3;
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const OUTPUTS: &'static [Output] =
        &[output("classifier", "classifier.safetensors"), output("predictions", "predictions.safetensors")];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] =
        &[("classifier", r#""Logistic""#), ("determinism", r#""Fast""#)];
    const SOURCES: &'static [&'static str] = &["train", "val", "test"];

    fn inputs(&self) -> Vec<Input> {
        let mut inputs =
            vec![Input::output("train", &self.train, "features"), Input::output("test", &self.test, "features")];
        inputs.extend(self.val.iter().map(|val| Input::output("val", val, "features")));
        inputs
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure(self.strengths >= 1, "strengths", "is 0; give at least 1")?;
        let ranks = self.classifier == TransferClassifier::Logistic || self.metric == TransferMetric::Map11;
        ensure(ranks, "classifier", "is Svm, which ranks images for each class; give metric: Map11, or Logistic")?;
        let (low, high) = self.range;
        ensure(
            0.0 < low && low <= high && high.is_finite(),
            "range",
            format!("is ({low}, {high}); give 0 < weakest ≤ strongest"),
        )?;
        ensure(
            self.val_share > 0.0 && self.val_share < 1.0,
            "val_share",
            format!("is {}; give a fraction between 0 and 1", self.val_share),
        )
    }
    fn is_portable(&self) -> bool {
        self.determinism == Determinism::Portable
    }
}
