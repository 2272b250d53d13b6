//! The results in a store, and what they take.

use anyhow::Result;
use caco_engine::{
    key::Key,
    store::{Published, Store},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// A result in a store.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// The record that stands for the key.
    pub record: String,
    /// How many records the key has; more than one where the same request gave different bytes.
    pub records: usize,
    /// Whether it is kept from being collected.
    pub pinned: bool,
    /// Bytes of its outputs. Bytes that it shares with other results are counted too.
    pub bytes: u64,
    /// How it was made: stage, kind, pipeline, time, host. See docs/provenance.md.
    pub made: Value,
}

impl Row {
    /// A text among what is known of how it was made.
    pub fn text(&self, field: &str) -> &str {
        self.made[field].as_str().unwrap_or("?")
    }

    /// Of one result.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn of(store: &Store, published: &Published) -> Result<Row> {
        Ok(Row {
            key: published.key,
            record: published.record.to_string(),
            records: store.records(published.key)?.len(),
            pinned: store.is_pinned(published.key),
            bytes: published.outputs.iter().map(|o| o.size).sum(),
            made: store.record(published).ok().flatten().unwrap_or_default(),
        })
    }
}

/// Every result that can be read, the newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn rows(store: &Store) -> Result<Vec<Row>> {
    let mut rows = vec![];
    for key in store.keys()? {
        if let Some(published) = store.lookup(key)? {
            rows.push(Row::of(store, &published)?);
        }
    }
    rows.sort_by(|a, b| b.text("started").cmp(a.text("started")).then(a.key.cmp(&b.key)));
    Ok(rows)
}

/// What a store takes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Usage {
    /// Its results by stage kind.
    pub kinds: BTreeMap<String, OfKind>,
    /// Bytes on disk by folder of the store; equal bytes are stored once.
    pub folders: BTreeMap<String, u64>,
}

/// The results of one stage kind.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct OfKind {
    /// How many there are.
    pub results: u64,
    /// Bytes of their outputs. Bytes that results share are counted for each.
    pub bytes: u64,
}

/// What a store takes, by stage kind and by folder.
///
/// # Errors
/// Where the store cannot be read.
pub fn usage(store: &Store) -> Result<Usage> {
    let mut kinds: BTreeMap<String, OfKind> = BTreeMap::new();
    for row in rows(store)? {
        let kind = kinds.entry(row.text("kind").to_string()).or_default();
        kind.results += 1;
        kind.bytes += row.bytes;
    }
    let folders = ["objects", "results", "work", "quarantine", "listings", "hosts"];
    let folders = folders.iter().map(|name| (name.to_string(), size_of(&store.root().join(name)))).collect();
    Ok(Usage { kinds, folders })
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_of(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
