use super::{Complaint, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A residual network (He et al. 2016) in torchvision's layout, and the three-layer head on top of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Depth and block type.
    pub arch: Arch,
    /// Channels after the stem; 64 in the paper. Features have 8 × width channels (32 × for ResNet-50).
    #[serde(default = "width")]
    pub width: u32,
    /// 7×7 stride 2 and max-pool (Imagenet), or 3×3 stride 1 without (Cifar).
    #[serde(default)]
    pub stem: Stem,
    /// Hidden width of the head.
    #[serde(default = "hidden")]
    pub hidden: u32,
    /// Dimension C of the embedding.
    #[serde(default = "dim")]
    pub dim: u32,
}

pub(super) fn width() -> u32 {
    64
}
fn hidden() -> u32 {
    2048
}
fn dim() -> u32 {
    256
}

/// Depth and block type of a residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Arch {
    /// Basic blocks, 2 2 2 2.
    ResNet18,
    /// Basic blocks, 3 4 6 3.
    ResNet34,
    /// Bottleneck blocks, 3 4 6 3.
    ResNet50,
}

/// The first layers of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stem {
    /// 7×7 convolution of stride 2, then a max-pool of stride 2.
    #[default]
    Imagenet,
    /// 3×3 convolution of stride 1, no pooling: for images of 32 to 64 pixels.
    Cifar,
}

/// Floating-point precision of the forward and backward passes. Loss, bank and optimizer use f32 in both cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 under autocast.
    Bf16,
}

/// Which activations of a forward pass are kept for the backward pass. This affects memory and time but not a bit of
/// the result (tested on the CPU; not tried on a GPU).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activations {
    /// All activations.
    #[default]
    Keep,
    /// Only activations between residual blocks; those inside are recomputed.
    Recompute,
}

impl Model {
    /// Whether there is a head. Imported weights may have none; its sizes are then 0.
    pub fn has_head(&self) -> bool {
        self.hidden > 0 && self.dim > 0
    }

    /// Adds to the key of a training of this network. Strided 1×1 convolutions with few input channels now run at
    /// stride 1; earlier results may come from a kernel that wrote out of bounds.
    pub(super) fn rekey(&self, parameters: &mut serde_json::Value) {
        let channels = if self.arch == Arch::ResNet50 { 4 * self.width } else { self.width };
        if channels < 16 {
            parameters["strided"] = "subsampled".into();
        }
    }

    /// Rejects sizes of zero.
    pub fn check(&self) -> Result<(), Complaint> {
        for (field, value) in [("model.width", self.width), ("model.hidden", self.hidden), ("model.dim", self.dim)] {
            ensure((1..=65536).contains(&value), field, format!("is {value}; give 1 to 65536"))?;
        }
        Ok(())
    }
}
