//! How far a result made under another determinism class (another CPU, GPU, libtorch, number of threads) may be from the
//! first and still count as the same. Within one class the promise is identical bytes, and none of this applies.
//!
//! A training amplifies the last bits of its floats, so its weights are not compared, only what it is about. The figures
//! here are declared, about what another seed changes on a small run; no two machines have been compared.

use crate::{engine::graph::METRICS, metric, metric::Metric};
use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors};
use std::{fs, path::Path};

/// What is compared of a stage kind's outputs across determinism classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Nothing may differ: no float decides the bytes.
    Exact,
    /// Each tensor, by the length of the difference relative to its own.
    Tensors(f64),
    /// These metrics, by the absolute difference; other outputs may differ.
    Metrics(&'static [(&'static str, f64)]),
}

/// Shares of right answers, and losses.
const FIGURES: &[(&str, f64)] = &[
    ("top1", 0.02),
    ("top5", 0.02),
    ("mean_per_class", 0.02),
    ("map11", 0.02),
    ("knn", 0.05),
    ("loss", 0.1),
    ("positive", 0.05),
];

/// The tolerance that a stage kind declares. None: no kind of that name.
pub fn of(kind: &str) -> Option<Tolerance> {
    Some(match kind {
        "command" | "synthesize" | "index" | "pack" | "import_weights" | "export_weights" | "compare" => {
            Tolerance::Exact
        }
        "init_encoder" => Tolerance::Tensors(1e-6),
        "features" => Tolerance::Tensors(1e-3),
        "init_bank" | "pretrain" | "knn" | "linear_eval" | "transfer_eval" => Tolerance::Metrics(FIGURES),
        _ => return None,
    })
}

impl Tolerance {
    /// Where two files of one output are further apart than this allows.
    pub fn compare(self, output: &str, first: &Path, second: &Path) -> Result<Vec<String>> {
        match self {
            Tolerance::Exact => Ok(vec![format!("{output} differs, and no tolerance is declared for it")]),
            Tolerance::Tensors(limit) if output != METRICS => tensors(output, first, second, limit),
            Tolerance::Metrics(limits) if output == METRICS => {
                Ok(metrics(&metric::read(first)?, &metric::read(second)?, limits))
            }
            _ => Ok(vec![]),
        }
    }
}

fn metrics(first: &[Metric], second: &[Metric], limits: &[(&str, f64)]) -> Vec<String> {
    let mut faults = vec![];
    for a in first {
        let Some((_, limit)) = limits.iter().find(|(name, _)| *name == a.name) else { continue };
        let Some(b) = second.iter().find(|b| b.name == a.name && b.split == a.split) else {
            faults.push(format!("metric {} on {} is not there again", a.name, a.split));
            continue;
        };
        let apart = (a.value - b.value).abs();
        if apart.is_nan() || apart > *limit {
            faults.push(format!(
                "metric {} on {} was {}, is {}: more than {limit} apart",
                a.name, a.split, a.value, b.value
            ));
        }
    }
    faults
}

fn tensors(output: &str, first: &Path, second: &Path, limit: f64) -> Result<Vec<String>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (first, second) = (read(first)?, read(second)?);
    let (a, b) = (SafeTensors::deserialize(&first)?, SafeTensors::deserialize(&second)?);
    let (mut ours, mut theirs) = (a.names(), b.names());
    ours.sort();
    theirs.sort();
    ensure!(ours == theirs, "{output} holds other tensors than before");
    let mut faults = vec![];
    for name in ours {
        let (a, b) = (a.tensor(name)?, b.tensor(name)?);
        let distance = match (floats(&a), floats(&b)) {
            (Some(a), Some(b)) if a.len() == b.len() => relative(&a, &b),
            _ if a.data() == b.data() => 0.0,
            _ => f64::INFINITY,
        };
        if distance.is_nan() || distance > limit {
            faults
                .push(format!("{output}: tensor {name} is {distance:.2e} of its length away, {limit:.0e} is allowed"));
        }
    }
    Ok(faults)
}

fn floats(tensor: &safetensors::tensor::TensorView) -> Option<Vec<f64>> {
    let data = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F32 => {
            data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four bytes")))).collect()
        }
        Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect(),
        _ => return None,
    })
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
    fn every_kind_declares_one() {
        for entry in crate::spec::kind::registry::kinds() {
            assert!(of(entry.name).is_some(), "kind '{}' declares no tolerance", entry.name);
        }
    }

    #[test]
    fn metrics_are_compared_with_their_limit() {
        let metric = |value: f64| [Metric::new("top1", "test", value), Metric::new("seconds", "test", value)];
        assert!(metrics(&metric(0.5), &metric(0.515), FIGURES).is_empty());
        assert_eq!(metrics(&metric(0.5), &metric(0.53), FIGURES).len(), 1);
        assert_eq!(metrics(&metric(0.5), &metric(f64::NAN), FIGURES).len(), 1);
        assert_eq!(metrics(&metric(0.5), &[], FIGURES).len(), 1);
    }

    #[test]
    fn tensors_are_compared_by_their_length() {
        assert_eq!(relative(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative(&[3.0, 4.0], &[3.0, 4.5]), 0.1);
        assert_eq!(relative(&[0.0], &[1.0]), f64::INFINITY);
    }
}
