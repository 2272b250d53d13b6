use super::{Optimizer, Parameters, Published, check_size, check_temperature, check_whole_batch, within};
use crate::{Complaint, Pretrain, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SwAV, without its queue of embeddings: each view predicts how the first two are divided among prototypes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwAV {
    /// Number of prototypes.
    #[serde(default = "prototypes")]
    pub prototypes: u32,
    /// Temperature τ of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// ε, the weight of the entropy in the division among prototypes: the smaller, the closer to one prototype an image.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
    /// Iterations of Sinkhorn and Knopp.
    #[serde(default = "iterations")]
    pub iterations: u32,
    /// Epochs in which the prototypes are not trained.
    #[serde(default = "freeze")]
    pub freeze: u32,
}

fn prototypes() -> u32 {
    3000
}
fn temperature() -> f64 {
    0.1
}
fn epsilon() -> f64 {
    0.05
}
fn iterations() -> u32 {
    3
}
fn freeze() -> u32 {
    1
}

impl Parameters for SwAV {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Lars, rate: 0.3, falls: 1000.0, warmup: 10, weight_decay: 1e-6 }
    }

    fn check(&self, training: &Pretrain) -> Result<(), Complaint> {
        check_size("prototypes", self.prototypes)?;
        check_temperature("temperature", self.temperature)?;
        check_temperature("epsilon", self.epsilon)?;
        ensure(self.iterations >= 1, &within("iterations"), "is 0; give at least 1")?;
        check_whole_batch(training, "SwAV")
    }
}
