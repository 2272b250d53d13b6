use super::*;

/// Draws a labelled set of synthetic images: classes differ in shape and texture; colour, scale, position and
/// background vary independently of the class. Writes JPEG files in the ImageFolder layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Synthesize {
    /// The family of classes.
    #[serde(default)]
    pub domain: Domain,
    /// Number of classes, 2 to 16.
    pub classes: u32,
    /// Total training images, spread evenly over the classes.
    pub train: u32,
    /// Total test images, spread evenly over the classes.
    pub test: u32,
    /// Side of each image, in pixels.
    pub size: u32,
    /// JPEG quality, 1 to 100.
    #[serde(default = "quality")]
    pub quality: u8,
    /// Seed of the images.
    #[serde(default)]
    pub seed: u64,
}

fn quality() -> u8 {
    92
}

/// A family of synthetic classes. The second is for transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Domain {
    /// One filled, textured shape on a cluttered background; the class is the shape and texture.
    #[default]
    Shapes,
    /// Glyphs made of strokes, in groups; the class is the stroke pattern.
    Glyphs,
}

impl Kind for Synthesize {
    const NAME: &'static str = "synthesize";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const OUTPUTS: &'static [Output] = &[output("train", "train"), output("test", "test")];

    fn inputs(&self) -> Vec<Input> {
        vec![]
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure((2..=16).contains(&self.classes), "classes", format!("is {}; give 2 to 16", self.classes))?;
        for (field, n) in [("train", self.train), ("test", self.test)] {
            let least = self.classes;
            ensure(
                (least..=10_000_000).contains(&n),
                field,
                format!("is {n}; give at least one image per class ({least})"),
            )?;
        }
        ensure((16..=1024).contains(&self.size), "size", format!("is {}; give 16 to 1024 pixels", self.size))?;
        ensure((1..=100).contains(&self.quality), "quality", format!("is {}; give 1 to 100", self.quality))
    }
}
