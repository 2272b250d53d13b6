//! Compares two results of one key under the tolerance that their stage kind declares.

use anyhow::{Context, Result, ensure};
use caco_engine::graph::METRICS;
use caco_measure::{
    metric::{self, Metric},
    tensor_file::TensorFile,
};
use caco_pipeline::kind::Tolerance;
use std::{fs, path::Path};

/// The differences between two files of one output that exceed the tolerance.
pub fn compare(tolerance: Tolerance, output: &str, first: &Path, second: &Path) -> Result<Vec<String>> {
    match tolerance {
        Tolerance::Exact => Ok(vec![format!("{output} differs, and no tolerance is declared for it")]),
        Tolerance::Tensors(limit) if output != METRICS => tensors(output, first, second, limit),
        Tolerance::Metrics(limits) if output == METRICS => {
            Ok(metrics(&metric::read(first)?, &metric::read(second)?, limits))
        }
        _ => Ok(vec![]),
    }
}

fn metrics(first: &[Metric], second: &[Metric], limits: &[(&str, f64)]) -> Vec<String> {
    let mut faults = vec![];
    for a in first {
        let Some((_, limit)) = limits.iter().find(|(name, _)| *name == a.name) else { continue };
        let Some(b) = second.iter().find(|b| b.name == a.name && b.split == a.split) else {
            faults.push(format!("metric {} on {} is missing in the rerun", a.name, a.split));
            continue;
        };
        let apart = (a.value - b.value).abs();
        if apart.is_nan() || apart > *limit {
            faults.push(format!(
                "metric {} on {} was {}, now {}: they differ by more than {limit}",
                a.name, a.split, a.value, b.value
            ));
        }
    }
    faults
}

fn tensors(output: &str, first: &Path, second: &Path, limit: f64) -> Result<Vec<String>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (first, second) = (read(first)?, read(second)?);
    let (a, b) = (TensorFile::read(&first)?, TensorFile::read(&second)?);
    ensure!(a.tensors.keys().eq(b.tensors.keys()), "{output} has other tensors than before");
    let mut faults = vec![];
    for ((name, a), b) in a.tensors.iter().zip(b.tensors.values()) {
        let distance = match (a.floats(), b.floats()) {
            (Some(a), Some(b)) if a.len() == b.len() => relative(&a, &b),
            _ if a.data == b.data => 0.0,
            _ => f64::INFINITY,
        };
        if distance.is_nan() || distance > limit {
            faults.push(format!(
                "{output}: tensor {name} has a relative difference of {distance:.2e}, but {limit:.0e} is allowed"
            ));
        }
    }
    Ok(faults)
}

fn relative(a: &[f64], b: &[f64]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = length(&mut a.iter().zip(b).map(|(a, b)| a - b));
    if difference == 0.0 { 0.0 } else { difference / length(&mut a.iter().copied()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_compared_with_their_limit() {
        let metric = |value: f64| [Metric::new("top1", "test", value), Metric::new("seconds", "test", value)];
        assert!(metrics(&metric(0.5), &metric(0.515), Tolerance::FIGURES).is_empty());
        assert_eq!(metrics(&metric(0.5), &metric(0.53), Tolerance::FIGURES).len(), 1);
        assert_eq!(metrics(&metric(0.5), &metric(f64::NAN), Tolerance::FIGURES).len(), 1);
        assert_eq!(metrics(&metric(0.5), &[], Tolerance::FIGURES).len(), 1);
    }

    #[test]
    fn tensors_are_compared_by_their_length() {
        assert_eq!(relative(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative(&[3.0, 4.0], &[3.0, 4.5]), 0.1);
        assert_eq!(relative(&[0.0], &[1.0]), f64::INFINITY);
    }
}
