//! How a stage is run, as far as that is said in the pipeline file. Nothing here joins a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The field `run` of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How often a failed stage is tried again, with growing pauses.
    pub retries: u32,
    /// The stage is stopped and counts as failed after so many minutes.
    pub timeout_minutes: Option<f64>,
    /// CPU cores it takes. Tensor stages take all unless told otherwise, commands one.
    pub cpus: Option<u32>,
    /// GPUs it takes.
    pub gpus: u32,
    /// Memory it takes, GiB.
    pub memory_gib: f64,
}
