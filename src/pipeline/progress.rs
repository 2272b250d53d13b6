//! How far a stage is, as it says itself.

use serde::{Deserialize, Serialize};

/// The file in a stage's folder that holds its [`Progress`] as JSON.
pub const PROGRESS: &str = "progress.json";
/// The environment variable that names it to a command.
pub const PROGRESS_VARIABLE: &str = "CACO_PROGRESS";

/// How far a stage is. Written beside its checkpoints for whoever watches; a command leaves out what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0: not known.
    pub total: u64,
    /// What is counted: `steps`, `images`.
    pub unit: String,
    /// The last figure worth a look, with its name.
    pub note: String,
}
