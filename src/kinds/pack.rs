use super::*;

/// Packs the images of an index into one file, for sequential reading where decoding or a slow disk is the bottleneck.
/// A short side longer than `short` pixels is resized to it. Its output `index` replaces the index that it reads, in
/// the same order. Views of packed images differ from those of the originals: large crops have fewer pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// An index stage: the images.
    pub index: String,
    /// The short side, in pixels. Smaller images keep their size.
    pub short: u32,
    /// Resampling filter.
    #[serde(default)]
    pub filter: Filter,
    /// How pixels are stored.
    #[serde(default)]
    pub encoding: Encoding,
}

/// How packed pixels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// JPEG of this quality, 1 to 100, without subsampling from 90 up. Files that are not resized are kept unchanged.
    Jpeg(u8),
    /// Three bytes per pixel: the largest file, but no decoding.
    Raw,
}

impl Default for Encoding {
    fn default() -> Self {
        Encoding::Jpeg(95)
    }
}

impl Kind for Pack {
    const NAME: &'static str = "pack";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const OUTPUTS: &'static [Output] = &[output("index", "index.jsonl"), output("images", "images")];
    const SOURCES: &'static [&'static str] = &["index"];

    fn inputs(&self) -> Vec<Input> {
        Input::index("index", &self.index).into()
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure((8..=8192).contains(&self.short), "short", format!("is {}; give 8 to 8192 pixels", self.short))?;
        let Encoding::Jpeg(quality) = self.encoding else { return Ok(()) };
        ensure((1..=100).contains(&quality), "encoding", format!("is Jpeg({quality}); give a quality of 1 to 100"))
    }
}
