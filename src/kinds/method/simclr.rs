use super::{Optimizer, Parameters, Published, check_temperature, check_two_views, check_whole_batch};
use crate::{Complaint, Pretrain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SimCLR: each view is compared with the other view of its image and with all views of the batch's other images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimCLR {
    /// Temperature τ of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
}

fn temperature() -> f64 {
    0.1
}

impl Parameters for SimCLR {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Lars, rate: 0.3, falls: f64::INFINITY, warmup: 10, weight_decay: 1e-6 }
    }

    fn check(&self, training: &Pretrain) -> Result<(), Complaint> {
        check_temperature("temperature", self.temperature)?;
        check_whole_batch(training, "SimCLR")?;
        check_two_views(training, "SimCLR")
    }
}
