use super::*;

/// How JPEG files are decoded before views are cropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decode {
    /// In full: views are bit-identical to torchvision's.
    #[default]
    Full,
    /// At 1/2, 1/4 or 1/8 of their size, by a shorter DCT, if every crop of the image still has at least as many pixels
    /// as its view. Faster if images are more than twice as large as views, but the pixels differ slightly.
    Scaled,
}
