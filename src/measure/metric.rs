//! A metric, as written by stages, kept in the store and read by reports.

use crate::{interval::wilson, number};
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// A metric with its name and the split it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Metric {
    /// Name of the metric, such as `top1` (a fraction in 0 to 1) or `loss`.
    pub name: String,
    /// The images it was measured on: `train`, `val` or `test`; empty if a command does not specify it.
    pub split: String,
    /// The value. Accuracies are fractions, not per cent. One that is not finite is `"nan"`, `"inf"` or `"-inf"`.
    #[serde(serialize_with = "number::serialize", deserialize_with = "number::deserialize")]
    #[schemars(schema_with = "number::schema")]
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

/// Reads a file written by [`write`], or by another program that writes `NaN` and `Infinity` as Python does.
pub fn read(path: &Path) -> io::Result<Vec<Metric>> {
    let text = std::fs::read_to_string(path)?;
    text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(parse).collect()
}

fn parse(line: &str) -> io::Result<Metric> {
    let parsed = serde_json::from_str(line);
    Ok(parsed.or_else(|error| serde_json::from_str(&number::quoted(line)).map_err(|_| error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_what_other_programs_write_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        write(&path, &[Metric::new("loss", "val", f64::INFINITY), Metric::new("top1", "", 0.5)]).unwrap();
        assert_eq!(read(&path).unwrap(), [Metric::new("loss", "val", f64::INFINITY), Metric::new("top1", "", 0.5)]);
        std::fs::write(&path, "\u{feff}{\"name\": \"loss\", \"split\": \"\", \"value\": NaN}\n").unwrap();
        assert!(read(&path).unwrap()[0].value.is_nan());
        std::fs::write(&path, "{\"name\": \"loss\"}\n").unwrap();
        assert!(read(&path).is_err());
    }
}
