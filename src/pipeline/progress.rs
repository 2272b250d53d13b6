//! How far a stage is, as it says itself.

use serde::{Deserialize, Serialize};

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
