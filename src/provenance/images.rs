//! Compares the images that an index lists with those in their folder. Other files in the folder were never read.

use caco_engine::{digest::Digest, listing, stat, store::Store};
use rayon::prelude::*;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The first line of an index.
#[derive(Deserialize)]
struct Header {
    classes: Vec<serde_json::Value>,
}

/// The relevant fields of a line of an index.
#[derive(Deserialize)]
struct Listed {
    path: String,
    blake3: Option<Digest>,
    /// The image's position in an archive. The digest is then not that of the file.
    within: Option<serde_json::Value>,
}

/// The folders checked so far.
#[derive(Default)]
pub struct Images {
    held: Mutex<HashMap<(Digest, PathBuf), bool>>,
}

impl Images {
    /// Whether `folder` still contains every image that this index lists, byte for byte. Also false if that cannot be
    /// determined: for images in archives, and if the bytes are not an index.
    pub fn hold(&self, store: &Store, index: Digest, folder: &Path, cache: &stat::Cache) -> bool {
        let asked = (index, folder.to_path_buf());
        if let Some(known) = self.held.lock().expect("no panic while held").get(&asked) {
            return *known;
        }
        let holds = hold(&store.object(index), folder, cache);
        self.held.lock().expect("no panic while held").insert(asked, holds);
        holds
    }
}

fn hold(index: &Path, folder: &Path, cache: &stat::Cache) -> bool {
    let Ok(text) = fs::read_to_string(index) else { return false };
    let Some((header, images)) = text.split_once('\n') else { return false };
    let is_index = serde_json::from_str::<Header>(header).is_ok_and(|header| !header.classes.is_empty());
    is_index && !images.is_empty() && images.par_lines().all(|line| is_there(line, folder, cache))
}

fn is_there(line: &str, folder: &Path, cache: &stat::Cache) -> bool {
    let Ok(Listed { path, blake3, within: None }) = serde_json::from_str(line) else { return false };
    // Unreadable images were left out.
    let Some(listed) = blake3 else { return true };
    let path = folder.join(path);
    let found = fs::metadata(&path).ok().and_then(|meta| listing::digest_of(&path, &meta, cache).ok());
    found == Some(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"classes":["cat"]}"#;

    #[test]
    fn unlisted_files_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let (index, images) = (folder.path().join("index.jsonl"), folder.path().join("images"));
        let cache = stat::Cache::load(Path::new(""));
        fs::create_dir(&images).unwrap();
        fs::write(images.join("a.jpg"), "a").unwrap();
        let row = |name: &str, more: &str| format!(r#"{{"path":"{name}","blake3":"{}"{more}}}"#, Digest::of(b"a"));
        fs::write(&index, format!("{HEADER}\n{}\n{}\n", row("a.jpg", ""), r#"{"path":"b.jpg","unreadable":"cut"}"#))
            .unwrap();
        assert!(hold(&index, &images, &cache));
        fs::write(images.join("README"), "new").unwrap();
        assert!(hold(&index, &images, &cache));
        fs::write(images.join("a.jpg"), "other").unwrap();
        assert!(!hold(&index, &images, &cache));
        fs::write(&index, format!("{HEADER}\n{}\n", row("gone.jpg", ""))).unwrap();
        assert!(!hold(&index, &images, &cache));
        fs::write(images.join("a.jpg"), "a").unwrap();
        fs::write(&index, format!("{HEADER}\n{}\n", row("a.jpg", r#","within":[0,1]"#))).unwrap();
        assert!(!hold(&index, &images, &cache));
        assert!(!hold(&images, &images, &cache));
        fs::write(&index, "one line\n").unwrap();
        assert!(!hold(&index, &images, &cache), "it is not an index");
    }
}
