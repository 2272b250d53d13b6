use super::*;

/// Imports a published backbone for evaluation, from safetensors or a PyTorch `.pth` or `.pth.tar` file. Nothing in the
/// file is executed. Every tensor of the backbone must be present with its shape; other tensors are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportWeights {
    /// The file.
    pub file: Source,
    /// Depth and block type.
    pub arch: Arch,
    /// Channels after the stem.
    #[serde(default = "super::model::width")]
    pub width: u32,
    /// The first layers.
    #[serde(default)]
    pub stem: Stem,
    /// Prefix of the backbone's tensor names in the file, such as `state_dict.module.encoder_q.`. If left out, it is
    /// detected.
    #[serde(default)]
    pub prefix: Option<String>,
}

impl ImportWeights {
    /// The network: a backbone without head.
    pub fn model(&self) -> Model {
        Model { arch: self.arch, width: self.width, stem: self.stem, hidden: 0, dim: 0 }
    }
}

impl Kind for ImportWeights {
    const NAME: &'static str = "import_weights";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const OUTPUTS: &'static [Output] = &[output("encoder", "encoder.safetensors")];
    const SOURCES: &'static [&'static str] = &["file"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input { slot: "file".into(), source: self.file.clone(), role: Role::Content }]
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure((1..=65536).contains(&self.width), "width", format!("is {}; give 1 to 65536", self.width))
    }
}
