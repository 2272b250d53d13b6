//! Writes digests of every step of a training: the first step and tensor in which a rerun differs can then be named. A
//! by-product, written on request, because every tensor is copied from its device.

use super::caco::{State, StepOutput};
use crate::{model::weights::Weights, tensors};
use anyhow::{Context as _, Result};
use caco_kinds::step_digests::{DIGITS, Head, Line};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};
use tch::Tensor;

/// The file of digests.
pub struct Digests {
    file: File,
    is_empty: bool,
}

impl Digests {
    /// Opens the file at `path`, without the lines of steps after `done`: they are about to be taken again.
    pub fn open(path: &Path, done: u64) -> Result<Self> {
        let open = || -> io::Result<Self> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let text = fs::read_to_string(path).unwrap_or_default();
            let taken = |line: &&str| serde_json::from_str(line).is_ok_and(|line: Line| line.step <= done);
            let (head, rest) = text.split_once('\n').unwrap_or_default();
            let kept: Vec<&str> = rest.lines().filter(taken).collect();
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
            for line in [head].iter().chain(&kept).filter(|_| !kept.is_empty()) {
                writeln!(file, "{line}")?;
            }
            Ok(Digests { file, is_empty: kept.is_empty() })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    /// Adds a step, numbered from 1.
    pub fn write(&mut self, step: u64, output: &StepOutput, state: &State) -> Result<()> {
        let tensors = in_order(output, state);
        let mut lines = vec![];
        if std::mem::take(&mut self.is_empty) {
            lines.push(serde_json::to_string(&Head {
                tensors: tensors.iter().map(|(name, _)| name.clone()).collect(),
            })?);
        }
        let digests: Result<String> = tensors.iter().map(|(_, tensor)| digest(tensor)).collect();
        lines.push(serde_json::to_string(&Line { step, digests: digests? })?);
        writeln!(self.file, "{}", lines.join("\n")).context("cannot write the digests of a step")
    }
}

/// The tensors of a step in the order in which it computes them: the key encoder's moving average, the statistics that
/// batch norm takes in the forward pass, the loss, the gradients from the last layer to the first, and what is updated.
fn in_order(output: &StepOutput, state: &State) -> Vec<(String, Tensor)> {
    let (query, key) = (state.query.weights(), state.key.weights());
    let named = |of: &str, name: &str, tensor: &Tensor| (format!("{of}.{name}"), tensor.shallow_clone());
    let parameters: Vec<(&str, &Tensor)> = query.parameters().collect();
    let is_parameter: BTreeSet<&str> = parameters.iter().map(|(name, _)| *name).collect();
    let averaged = key.parameters().map(|(name, tensor)| named("key", name, tensor));
    let statistics = |of: &'static str, weights: &Weights| -> Vec<(String, Tensor)> {
        let buffers = weights.named().filter(|(name, _)| !is_parameter.contains(name));
        buffers.map(|(name, tensor)| named(of, name, tensor)).collect()
    };
    let gradients = parameters.iter().zip(&output.gradients).rev();
    let gradients = gradients.map(|((name, _), gradient)| named("gradient", name, gradient));
    let updated = parameters.iter().map(|(name, tensor)| named("query", name, tensor));
    averaged
        .chain(statistics("query", query))
        .chain(statistics("key", key))
        .chain([("loss".into(), output.loss.shallow_clone())])
        .chain(gradients)
        .chain(updated)
        .chain([named("bank", "columns", &state.bank.columns)])
        .collect()
}

/// The start of the digest of a tensor's values.
fn digest(tensor: &Tensor) -> Result<String> {
    let mut values = blake3::Hasher::new();
    tensors::write_values(&mut values, tensor)?;
    Ok(values.finalize().to_hex()[..DIGITS].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_taken_again_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digests.jsonl");
        let line = |step: u64| format!("{{\"step\":{step},\"digests\":\"00\"}}\n");
        let head = "{\"tensors\":[\"loss\"]}\n";
        // The last line is one that a killed process did not end.
        let written = [head, &line(1), &line(2), &line(3), "{\"step\":"].concat();
        for (done, kept) in [(3, [head, &line(1), &line(2), &line(3)].concat()), (1, [head, &line(1)].concat())] {
            fs::write(&path, &written).unwrap();
            assert!(!Digests::open(&path, done).unwrap().is_empty);
            assert_eq!(fs::read_to_string(&path).unwrap(), kept);
        }
        // The first step names the tensors again.
        assert!(Digests::open(&path, 0).unwrap().is_empty);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
