use super::{Optimizer, Parameters, Published, check_momentum, check_size, check_two_views, check_whole_batch};
use crate::{Complaint, Pretrain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// BYOL: a predictor of each view's embedding is compared with the other view's embedding by a moving average of the
/// encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BYOL {
    /// Hidden width of the predictor.
    #[serde(default = "predictor")]
    pub predictor: u32,
    /// Initial momentum of the moving average; it rises to 1 by a cosine schedule.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
}

fn predictor() -> u32 {
    4096
}
fn key_momentum() -> f64 {
    0.996
}

impl Parameters for BYOL {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Lars, rate: 0.2, falls: f64::INFINITY, warmup: 10, weight_decay: 1.5e-6 }
    }

    fn check(&self, training: &Pretrain) -> Result<(), Complaint> {
        check_size("predictor", self.predictor)?;
        check_momentum("key_momentum", self.key_momentum)?;
        check_whole_batch(training, "BYOL")?;
        check_two_views(training, "BYOL")
    }
}
