//! What is kept of a result that was collected: the texts of its records, a few kilobytes. The bytes are gone; what was
//! signed about them is not, so that whatever was made from them can still be traced.

use super::{At, Result, Store};
use crate::key::Key;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The files that are kept.
const KEPT: [&str; 4] = ["preimage.json", "manifest.json", "record.json", super::ATTESTATION];

/// What is left of one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The record's name.
    pub record: Box<str>,
    /// Its texts, by file.
    pub files: BTreeMap<String, String>,
}

impl Store {
    /// What is left of a collected result: the record that stood for its key, and those that diverged. Empty: the key was
    /// not collected.
    pub fn remains(&self, key: Key) -> Result<Vec<Remains>> {
        let path = self.remains_file(key);
        let Some(text) = super::result::read(&path)? else { return Ok(vec![]) };
        serde_json::from_slice(&text).map_err(|e| super::Error::Damaged { path, why: e.to_string() })
    }

    /// Keeps what stays of a result that is about to be removed.
    pub(super) fn keep_remains(&self, key: Key) -> Result<()> {
        let standing = self.current(key)?;
        let mut records = self.records(key)?;
        records.sort_by_key(|record| standing.as_ref() != Some(record));
        let folder = self.result(key);
        let kept = |record: Box<str>| {
            let text =
                |name: &&str| Some((name.to_string(), fs::read_to_string(folder.join(&*record).join(name)).ok()?));
            Remains { files: KEPT.iter().filter_map(text).collect(), record }
        };
        let remains: Vec<Remains> = records.into_iter().map(kept).collect();
        if remains.is_empty() {
            return Ok(());
        }
        let path = self.remains_file(key);
        super::make_folder(path.parent().expect("it lies in a shard"))?;
        super::write_aside(&path, &serde_json::to_vec(&remains).expect("texts are JSON"))
    }

    /// Forgets what was kept of a result that is there again.
    pub(super) fn drop_remains(&self, key: Key) -> Result<()> {
        let path = self.remains_file(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", &path),
            _ => Ok(()),
        }
    }

    fn remains_file(&self, key: Key) -> PathBuf {
        self.sharded("collected", key.0).with_extension("json")
    }
}
