use super::*;

/// Extracts features of every image of an index with a frozen encoder: the globally pooled output of layer 4, in index
/// order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The stage whose encoder is used.
    pub encoder: String,
    /// An index stage: the images.
    pub index: String,
    /// The short side is resized to this many pixels.
    pub resize: u32,
    /// Side of the centre crop, in pixels.
    pub crop: u32,
    /// Resampling filter.
    #[serde(default)]
    pub filter: Filter,
    /// Images per forward pass. In eval mode it affects features only by rounding.
    #[serde(default = "batch")]
    pub batch: u32,
    /// Floating-point precision of the encoder.
    #[serde(default)]
    pub precision: Precision,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
}

fn batch() -> u32 {
    256
}

impl Kind for Features {
    const NAME: &'static str = "features";
    const VERSION: u32 = 2;
    const DEVICE: bool = true;
    const TOLERANCE: Tolerance = Tolerance::Tensors(1e-3);
    const OUTPUTS: &'static [Output] = &[output("features", "features.safetensors")];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] = &[("determinism", r#""Fast""#)];
    const SOURCES: &'static [&'static str] = &["encoder", "index"];

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::output("encoder", &self.encoder, "encoder")];
        inputs.extend(Input::index("index", &self.index));
        inputs
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure((8..=4096).contains(&self.crop), "crop", format!("is {}; give 8 to 4096 pixels", self.crop))?;
        let small = format!("is {}; give at least the crop's {}", self.resize, self.crop);
        ensure(self.resize >= self.crop && self.resize <= 8192, "resize", small)?;
        ensure(self.batch >= 1, "batch", "is 0; give at least 1")?;
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
