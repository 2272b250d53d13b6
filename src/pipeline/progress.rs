//! The progress that a stage reports.

use serde::{Deserialize, Serialize};

/// The file in a stage's folder that holds its [`Progress`] as JSON.
pub const PROGRESS: &str = "progress.json";
/// The environment variable with its path, for commands.
pub const PROGRESS_VARIABLE: &str = "CACO_PROGRESS";

/// The progress of a stage. Written beside its checkpoints, for display. A command may leave out what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Total units, or 0 if unknown.
    pub total: u64,
    /// The unit: `steps`, `images`.
    pub unit: String,
    /// The most recent metric of interest, with its name.
    pub note: String,
}
