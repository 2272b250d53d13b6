//! What two results differ in: what was asked for, and the bytes.

use super::why::changed_files;
use anyhow::{Context, Result};
use caco_engine::{
    digest::Digest,
    key::{Key, Preimage},
    store::{Artifact, Published, Store},
    why::{Change, changes},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

/// The difference between two results.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Diff {
    /// The key of the first.
    pub old: Key,
    /// The key of the second.
    pub new: Key,
    /// What was asked for differently.
    pub asked: Vec<Change>,
    /// Their outputs, by name.
    pub outputs: Vec<OutputDiff>,
}

/// An output of two results.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutputDiff {
    /// Its name.
    pub name: String,
    /// Whether both have it, with the same bytes.
    pub same: bool,
    /// That of the first; none where it has no such output.
    pub old: Option<Bytes>,
    /// That of the second; none where it has no such output.
    pub new: Option<Bytes>,
}

/// What an output holds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Bytes {
    /// BLAKE3 of the bytes, or of a folder's listing.
    pub blake3: Digest,
    /// Its length in bytes; of a folder, that of all its files.
    pub bytes: u64,
}

/// Compares the results under two keys.
///
/// # Errors
/// Where a key has no result.
pub fn diff(store: &Store, old: Key, new: Key) -> Result<Diff> {
    let ((asked_old, result_old), (asked_new, result_new)) = (find(store, old)?, find(store, new)?);
    let mut asked = changes(&asked_old, &asked_new);
    name_files(store, &mut asked)?;
    Ok(Diff { old, new, asked, outputs: outputs(&result_old, &result_new) })
}

/// What was asked for under a key, and its result.
fn find(store: &Store, key: Key) -> Result<(Preimage, Published)> {
    let found = store.preimage(key)?.zip(store.lookup(key)?);
    found.with_context(|| format!("key {key} has no result in {}", store.root().display()))
}

/// Adds, to inputs that are folders whose listings are known, which files of them differ.
fn name_files(store: &Store, asked: &mut [Change]) -> Result<()> {
    for change in asked {
        let Change::Input { old: Some(old), new: Some(new), files, .. } = change else { continue };
        if let (Some(old), Some(new)) = (store.kept_listing(*old)?, store.kept_listing(*new)?) {
            *files = changed_files(&old, &new);
        }
    }
    Ok(())
}

fn outputs(old: &Published, new: &Published) -> Vec<OutputDiff> {
    let names: BTreeSet<&str> = old.outputs.iter().chain(new.outputs.iter()).map(|o| &*o.name).collect();
    let bytes = |of: &Artifact| Bytes { blake3: of.blake3, bytes: of.size };
    let of = |name: &str| {
        let (a, b) = (old.output(name), new.output(name));
        let same = a.map(|a| a.blake3) == b.map(|b| b.blake3);
        OutputDiff { name: name.into(), same, old: a.map(bytes), new: b.map(bytes) }
    };
    names.into_iter().map(of).collect()
}
