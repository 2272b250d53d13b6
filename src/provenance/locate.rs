//! Where a training and its rerun first differ: the step and tensor whose digests do. Both results need the by-product
//! with the digests of their steps, which a training writes under `run: (step_digests: true)`.

use super::rerun::Rerun;
use anyhow::{Context, Result, ensure};
use caco_engine::store::{Published, Store};
use caco_pipeline::step_digests::{self, DIGITS, Head, Line};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Where the two first differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "located")]
pub enum Located {
    /// In no step.
    Nowhere {
        /// How many steps were compared.
        steps: u64,
    },
    /// In this step and tensor.
    Step {
        /// The first step that differs, counted over all epochs from 1.
        step: u64,
        /// The first tensor that differs, in the order in which a step computes them.
        tensor: String,
        /// The start of the digest of its values in the first result.
        first: String,
        /// The same in the rerun.
        second: String,
        /// How many tensors differ after that step.
        differing: usize,
        /// How many tensors there are.
        of: usize,
    },
    /// Unknown: the first result was made without digests of its steps.
    NoDigests,
}

impl Rerun<'_> {
    /// Where the results first differ.
    pub fn locate(&self) -> Result<Located> {
        let Some(first) = digests(self.store, self.first) else { return Ok(Located::NoDigests) };
        let second = digests(self.scratch, self.second).context("the rerun wrote no digests of its steps")?;
        first_difference(&first, &second)
    }
}

/// The file with the digests of a result's steps, if it has them.
pub fn digests(store: &Store, of: &Published) -> Option<PathBuf> {
    Some(store.record_folder(of).join("byproducts").join(step_digests::FILE)).filter(|path| path.is_file())
}

/// A file of digests, read line by line.
struct Steps {
    path: PathBuf,
    tensors: Vec<String>,
    lines: std::io::Lines<BufReader<File>>,
}

impl Steps {
    fn open(path: &Path) -> Result<Steps> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut lines = BufReader::new(file).lines();
        let head = lines.next().with_context(|| format!("{} is empty", path.display()))?;
        let head: Head = serde_json::from_str(&head?).with_context(|| format!("{} line 1", path.display()))?;
        Ok(Steps { path: path.into(), tensors: head.tensors, lines })
    }

    /// The next step.
    fn next(&mut self) -> Result<Option<Line>> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        let place = || self.path.display().to_string();
        let line: Line = serde_json::from_str(&line.with_context(place)?).with_context(place)?;
        let fits = line.digests.len() == DIGITS * self.tensors.len() && line.digests.is_ascii();
        ensure!(fits, "{}: step {} does not have {} digests", place(), line.step, self.tensors.len());
        Ok(Some(line))
    }
}

/// The first difference between two files of digests. Steps that only one of them has are skipped: a machine that went
/// down may have lost some.
fn first_difference(first: &Path, second: &Path) -> Result<Located> {
    let (mut a, mut b) = (Steps::open(first)?, Steps::open(second)?);
    ensure!(a.tensors == b.tensors, "the digests of the two results are those of other tensors");
    let mut steps = 0;
    let mut right = b.next()?;
    while let Some(x) = a.next()? {
        while right.as_ref().is_some_and(|y| y.step < x.step) {
            right = b.next()?;
        }
        if let Some(y) = right.as_ref().filter(|y| y.step == x.step) {
            steps += 1;
            if x.digests != y.digests {
                return Ok(in_step(&x, y, &a.tensors));
            }
        }
    }
    Ok(Located::Nowhere { steps })
}

/// The difference between two digests of one step.
fn in_step(x: &Line, y: &Line, tensors: &[String]) -> Located {
    let of = |line: &Line, i: usize| line.digests[i * DIGITS..(i + 1) * DIGITS].to_string();
    let differing: Vec<usize> = (0..tensors.len()).filter(|i| of(x, *i) != of(y, *i)).collect();
    let i = differing[0];
    Located::Step {
        step: x.step,
        tensor: tensors[i].clone(),
        first: of(x, i),
        second: of(y, i),
        differing: differing.len(),
        of: tensors.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file of digests of two tensors.
    fn file(folder: &Path, name: &str, steps: &[(u64, &str, &str)]) -> PathBuf {
        let lines = steps.iter().map(|(step, a, b)| format!("{{\"step\":{step},\"digests\":\"{a:0>8}{b:0>8}\"}}\n"));
        let path = folder.join(name);
        fs::write(&path, format!("{{\"tensors\":[\"loss\",\"bank\"]}}\n{}", lines.collect::<String>())).unwrap();
        path
    }

    #[test]
    fn the_first_step_and_tensor_that_differ_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let first = file(folder.path(), "a", &[(1, "a", "b"), (2, "c", "d"), (3, "e", "f")]);
        assert_eq!(first_difference(&first, &first).unwrap(), Located::Nowhere { steps: 3 });
        let second = file(folder.path(), "b", &[(1, "a", "b"), (2, "c", "0"), (3, "1", "2")]);
        let [was, is] = ["0000000d", "00000000"].map(String::from);
        let found = Located::Step { step: 2, tensor: "bank".into(), first: was, second: is, differing: 1, of: 2 };
        assert_eq!(first_difference(&first, &second).unwrap(), found);
    }

    #[test]
    fn steps_that_one_result_lacks_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let first = file(folder.path(), "a", &[(1, "a", "b"), (3, "e", "f"), (4, "g", "h")]);
        let second = file(folder.path(), "b", &[(2, "c", "d"), (3, "e", "f"), (5, "g", "h")]);
        assert_eq!(first_difference(&first, &second).unwrap(), Located::Nowhere { steps: 1 });
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let whole = file(folder.path(), "a", &[(1, "a", "b")]);
        let short = folder.path().join("b");
        fs::write(&short, "{\"tensors\":[\"loss\",\"bank\"]}\n{\"step\":1,\"digests\":\"00\"}\n").unwrap();
        assert!(first_difference(&whole, &short).unwrap_err().to_string().contains("step 1 does not have 2 digests"));
    }
}
