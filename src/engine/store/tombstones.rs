//! Tombstones of collected results: the texts of their records, a few kilobytes. The bytes are removed but the
//! attestations are kept, so that results computed from them can still be traced.

use super::{At, Result, Store};
use crate::key::Key;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The files that are kept.
const KEPT: [&str; 4] = ["preimage.json", "manifest.json", "record.json", super::ATTESTATION];

/// The texts of a collected record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The record's name.
    pub record: Box<str>,
    /// Its texts, by file.
    pub files: BTreeMap<String, String>,
}

impl Store {
    /// The tombstones of a collected result: of its current record first, then of those that diverged. Empty if the key
    /// was not collected.
    pub fn tombstones(&self, key: Key) -> Result<Vec<Tombstone>> {
        let path = self.tombstone_file(key);
        let Some(text) = super::result::read(&path)? else { return Ok(vec![]) };
        serde_json::from_slice(&text).map_err(|e| super::Error::Damaged { path, why: e.to_string() })
    }

    /// Writes the tombstones of a result that is about to be removed.
    pub(super) fn keep_tombstones(&self, key: Key) -> Result<()> {
        let standing = self.current(key)?;
        let mut records = self.records(key)?;
        records.sort_by_key(|record| standing.as_ref() != Some(record));
        let folder = self.result(key);
        let kept = |record: Box<str>| {
            let text =
                |name: &&str| Some((name.to_string(), fs::read_to_string(folder.join(&*record).join(name)).ok()?));
            Tombstone { files: KEPT.iter().filter_map(text).collect(), record }
        };
        let tombstones: Vec<Tombstone> = records.into_iter().map(kept).collect();
        if tombstones.is_empty() {
            return Ok(());
        }
        let path = self.tombstone_file(key);
        super::make_folder(path.parent().expect("it is in a shard"))?;
        super::write_aside(&path, &serde_json::to_vec(&tombstones).expect("texts are JSON"))
    }

    /// Removes the tombstones of a result that exists again.
    pub(super) fn drop_tombstones(&self, key: Key) -> Result<()> {
        let path = self.tombstone_file(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &path),
            _ => Ok(()),
        }
    }

    fn tombstone_file(&self, key: Key) -> PathBuf {
        self.sharded("collected", key.0).with_extension("json")
    }
}
