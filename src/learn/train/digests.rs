//! Writes digests of every step of a training: the first step and tensor in which a rerun differs can then be named. A
//! by-product, written on request, because every tensor is copied from its device.

use super::method::{Changed, StepOutput};
use crate::tensors;
use anyhow::{Context as _, Result, ensure};
use caco_kinds::step_digests::{DIGITS, Head, Line};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};
use tch::Tensor;

/// The file of digests.
pub struct Digests {
    file: File,
    is_empty: bool,
    /// The number of tensors of a step, once one was taken.
    count: Option<usize>,
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
            Ok(Digests { file, is_empty: kept.is_empty(), count: None })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    /// Adds a step, numbered from 1.
    pub fn write(&mut self, step: u64, output: &StepOutput, changed: &[Changed]) -> Result<()> {
        let tensors = in_order(output, changed);
        let count = *self.count.get_or_insert(tensors.len());
        ensure!(tensors.len() == count, "step {step} has {} tensors, those before it {count}", tensors.len());
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

/// The tensors of a step in the order in which it computes them: what the forward passes change, which are moving averages
/// and the statistics of batch norm; the loss; the gradients from the last layer to the first; and what the update changes.
fn in_order(output: &StepOutput, changed: &[Changed]) -> Vec<(String, Tensor)> {
    let of = |by_update: bool| {
        let changed = changed.iter().filter(move |changed| changed.by_update == by_update);
        changed.map(|changed| (changed.name.clone(), changed.tensor.shallow_clone()))
    };
    let gradients = output.gradients.iter().rev();
    let gradients = gradients.map(|(name, gradient)| (format!("gradient.{name}"), gradient.shallow_clone()));
    of(false).chain([("loss".into(), output.loss.shallow_clone())]).chain(gradients).chain(of(true)).collect()
}

/// The start of the digest of all values of these tensors.
pub fn of_all(changed: &[Changed]) -> Result<i64> {
    let mut values = blake3::Hasher::new();
    changed.iter().try_for_each(|changed| tensors::write_values(&mut values, &changed.tensor))?;
    let start = values.finalize().as_bytes()[..8].try_into().expect("a digest has more bytes");
    Ok(i64::from_le_bytes(start))
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
