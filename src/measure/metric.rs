//! A measured number, as stages write it, the store keeps it and reports read it.

use crate::interval::wilson;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// A measured number with its name and the split it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Metric {
    /// What was measured, such as `top1` (a share in 0 to 1) or `loss`.
    pub name: String,
    /// The images it was measured on: `train`, `val` or `test`; empty where a command does not say.
    pub split: String,
    /// The number. Accuracies are shares, not per cent.
    pub value: f64,
    /// How many samples it was measured on, where that makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// 95 % interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
}

impl Metric {
    /// A number without interval.
    pub fn new(name: &str, split: &str, value: f64) -> Self {
        Metric { name: name.into(), split: split.into(), value, samples: None, interval: None }
    }

    /// A share of `right` answers among `samples`, with Wilson's 95 % interval.
    pub fn share(name: &str, split: &str, right: u64, samples: u64) -> Self {
        let value = right as f64 / samples.max(1) as f64;
        Metric { samples: Some(samples), interval: Some(wilson(right, samples)), ..Metric::new(name, split, value) }
    }
}

/// Where a stage writes what it measured, below its output folder.
pub const FILE: &str = "metrics.jsonl";

/// Writes a stage's metrics as JSON, one object a line.
pub fn write(path: &Path, metrics: &[Metric]) -> io::Result<()> {
    let mut text = String::new();
    for metric in metrics {
        text.push_str(&serde_json::to_string(metric)?);
        text.push('\n');
    }
    std::fs::write(path, text)
}

/// Reads what [`write`] wrote.
pub fn read(path: &Path) -> io::Result<Vec<Metric>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}
