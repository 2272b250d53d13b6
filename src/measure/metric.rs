//! A metric, as written by stages, kept in the store and read by reports.

use crate::interval::wilson;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// A metric with its name and the split it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Metric {
    /// Name of the metric, such as `top1` (a fraction in 0 to 1) or `loss`.
    pub name: String,
    /// The images it was measured on: `train`, `val` or `test`; empty if a command does not specify it.
    pub split: String,
    /// The value. Accuracies are fractions, not per cent.
    pub value: f64,
    /// Number of samples it was measured on, if applicable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// 95 % interval, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
}

impl Metric {
    /// A metric without interval.
    pub fn new(name: &str, split: &str, value: f64) -> Self {
        Metric { name: name.into(), split: split.into(), value, samples: None, interval: None }
    }

    /// The fraction of `right` answers among `samples`, with Wilson's 95 % interval.
    pub fn share(name: &str, split: &str, right: u64, samples: u64) -> Self {
        let value = right as f64 / samples.max(1) as f64;
        Metric { samples: Some(samples), interval: Some(wilson(right, samples)), ..Metric::new(name, split, value) }
    }
}

/// The file of a stage's metrics, below its output folder.
pub const FILE: &str = "metrics.jsonl";

/// Writes a stage's metrics as JSON, one object per line.
pub fn write(path: &Path, metrics: &[Metric]) -> io::Result<()> {
    let mut text = String::new();
    for metric in metrics {
        text.push_str(&serde_json::to_string(metric)?);
        text.push('\n');
    }
    std::fs::write(path, text)
}

/// Reads a file written by [`write`].
pub fn read(path: &Path) -> io::Result<Vec<Metric>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}
