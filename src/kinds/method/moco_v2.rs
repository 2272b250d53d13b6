use super::{Optimizer, Parameters, Published, check_momentum, check_size, check_temperature, check_two_views};
use crate::{Complaint, Pretrain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// MoCo v2: queries of the first view are compared with keys of the second and with a queue of earlier keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoCoV2 {
    /// Keys K in the queue.
    #[serde(default = "queue_size")]
    pub queue_size: u32,
    /// Temperature τ of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Momentum of the key encoder.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
    /// Whether queries of the second view are compared with keys of the first too; not in the paper.
    #[serde(default)]
    pub symmetric: bool,
}

fn queue_size() -> u32 {
    65536
}
fn temperature() -> f64 {
    0.2
}
fn key_momentum() -> f64 {
    0.999
}

impl Parameters for MoCoV2 {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Sgd, rate: 0.03, falls: f64::INFINITY, warmup: 0, weight_decay: 1e-4 }
    }

    fn check(&self, training: &Pretrain) -> Result<(), Complaint> {
        check_size("queue_size", self.queue_size)?;
        check_temperature("temperature", self.temperature)?;
        check_momentum("key_momentum", self.key_momentum)?;
        check_two_views(training, "MoCo v2")
    }

    fn has_bank(&self) -> bool {
        true
    }
}
