//! Digests of every step of a training: the form of the by-product that a training writes and an audit reads. A line of
//! JSON names the tensors, and one follows for each step.

use serde::{Deserialize, Serialize};

/// The name of the by-product.
pub const FILE: &str = "step_digests.jsonl";

/// Hexadecimal digits of a tensor's digest. Two steps that differ do so in many tensors, so that few digits are enough.
pub const DIGITS: usize = 8;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    /// The names of the tensors, in the order in which a step computes them.
    pub tensors: Vec<String>,
}

/// The digests after one step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Step, counted over all epochs from 1.
    pub step: u64,
    /// The start of the BLAKE3 digest of each tensor's values, [`DIGITS`] digits each.
    pub digests: String,
}
