//! Divergences: different bytes under one key. Both records are kept, the older one stays current, and the divergence
//! is noted here in a file of its own. A note outlives the records.

use super::{At, Result, Store, result::names};
use crate::key::Key;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The origin of the second record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The stage ran again here.
    Rerun,
    /// It was copied from another store.
    Copied(PathBuf),
}

/// A key with records of different bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Divergence {
    /// The key.
    pub key: Key,
    /// The key's current record afterwards.
    pub standing: Box<str>,
    /// The other record.
    pub other: Box<str>,
    /// The origin of the second record.
    pub cause: Cause,
    /// When it was noticed.
    pub noticed: String,
    /// On which host.
    pub host: String,
}

impl Store {
    /// Notes that a key has records of different bytes. Keeps the first note of a pair.
    pub fn note_divergence(&self, key: Key, standing: &str, other: &str, cause: Cause) -> Result<()> {
        let folder = self.root.join("divergences").join(key.to_string());
        let mut pair = [standing, other];
        pair.sort_unstable();
        let path = folder.join(pair.join("-")).with_extension("json");
        if path.exists() {
            return Ok(());
        }
        super::make_folder(&folder)?;
        let note = Divergence {
            key,
            standing: standing.into(),
            other: other.into(),
            cause,
            noticed: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            host: super::host(),
        };
        super::write_aside(&path, &serde_json::to_vec_pretty(&note).expect("a note is JSON"))
    }

    /// All notes, by key, oldest first.
    pub fn divergences(&self) -> Result<Vec<Divergence>> {
        let root = self.root.join("divergences");
        let mut notes = vec![];
        for key in names(&root)? {
            for name in names(&root.join(&key))?.into_iter().filter(|name| name.ends_with(".json")) {
                notes.push(read(&root.join(&key).join(name))?);
            }
        }
        notes.sort_by(|a: &Divergence, b| a.key.cmp(&b.key).then(a.noticed.cmp(&b.noticed)));
        Ok(notes)
    }

    /// Stores the signed verdict of a rerun. Returns the file.
    pub fn keep_verdict(&self, key: Key, text: &str) -> Result<PathBuf> {
        let folder = self.verdict_folder(key);
        super::make_folder(&folder)?;
        let path = folder.join(&crate::digest::Digest::of(text.as_bytes()).to_string()[..16]).with_extension("json");
        super::write_aside(&path, text.as_bytes())?;
        Ok(path)
    }

    /// The signed verdicts of reruns of a key.
    pub fn verdicts(&self, key: Key) -> Result<Vec<Vec<u8>>> {
        let folder = self.verdict_folder(key);
        let mut names = names(&folder)?;
        names.retain(|name| name.ends_with(".json"));
        names.sort();
        names.iter().map(|name| fs::read(folder.join(name)).at("read", &folder.join(name))).collect()
    }

    fn verdict_folder(&self, key: Key) -> PathBuf {
        self.root.join("verdicts").join(key.to_string())
    }

    /// Copies the notes of another store.
    pub(super) fn merge_divergences(&self, from: &Store, keys: &[Key]) -> Result<()> {
        for key in keys {
            let (theirs, ours) =
                [&from.root, &self.root].map(|root| root.join("divergences").join(key.to_string())).into();
            for name in names(&theirs)? {
                if !ours.join(&name).exists() {
                    super::make_folder(&ours)?;
                    let text = fs::read(theirs.join(&name)).at("read", &theirs.join(&name))?;
                    super::write_aside(&ours.join(&name), &text)?;
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Divergence> {
    let text = fs::read(path).at("read", path)?;
    serde_json::from_slice(&text).map_err(|e| super::Error::Damaged { path: path.into(), why: e.to_string() })
}
