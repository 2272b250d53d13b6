//! The last key of each stage of a pipeline, for `why` to compare with.

use super::{
    key::Key,
    store::{self, Store},
};
use std::{collections::HashMap, fs, path::PathBuf};

/// The last keys of a pipeline's stages.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Names {
    keys: HashMap<String, Key>,
}

fn file(store: &Store, pipeline: &str) -> PathBuf {
    store.root().join("names").join(pipeline)
}

impl Names {
    /// Reads them, skipping invalid lines.
    pub fn load(store: &Store, pipeline: &str) -> Names {
        let text = fs::read_to_string(file(store, pipeline)).unwrap_or_default();
        let entry = |line: &str| {
            let (key, name) = line.split_once(' ')?;
            Some((name.to_string(), key.parse().ok()?))
        };
        Names { keys: text.lines().filter_map(entry).collect() }
    }

    /// The last key of a stage.
    pub fn get(&self, stage: &str) -> Option<Key> {
        self.keys.get(stage).copied()
    }

    /// The last keys of all stages.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.values().copied()
    }

    /// Sets a stage's key. Returns whether it changed.
    pub fn set(&mut self, stage: &str, key: Key) -> bool {
        if self.keys.get(stage) == Some(&key) {
            return false;
        }
        self.keys.insert(stage.into(), key);
        true
    }

    /// Writes them back.
    pub fn save(&self, store: &Store, pipeline: &str) -> store::Result<()> {
        let mut lines: Vec<String> = self.keys.iter().map(|(name, key)| format!("{key} {name}\n")).collect();
        lines.sort_unstable();
        let path = file(store, pipeline);
        if let Some(folder) = path.parent() {
            store::make_folder(folder)?;
        }
        store::write_aside(&path, lines.concat().as_bytes())
    }
}
