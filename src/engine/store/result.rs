//! Records, which describe the results of a key.

use super::{At, Error, Result, Store};
use crate::{
    digest::Digest,
    key::{Key, Preimage},
    listing::Listing,
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One output of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The output's name.
    pub name: Box<str>,
    /// Whether it is a folder; its object is then its listing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folder: bool,
    /// Whether it is an executable file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// BLAKE3 of the bytes, or of the listing.
    pub blake3: Digest,
    /// SHA-256 of the same.
    pub sha256: Digest,
    /// The length in bytes. For a folder, the sum over its files.
    pub size: u64,
    /// The length of the object. For a folder, of its listing.
    pub length: u64,
}

/// The outputs of one record. Written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version.
    pub format: u32,
    /// The key.
    pub key: Key,
    /// The outputs, in declared order.
    pub outputs: Vec<Artifact>,
}

/// A complete result in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its key.
    pub key: Key,
    /// The key's current record: the first sixteen digits of the digest of its outputs.
    pub record: Arc<str>,
    /// Its outputs, in declared order.
    pub outputs: Arc<[Artifact]>,
}

impl Published {
    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&Artifact> {
        self.outputs.iter().find(|o| &*o.name == name)
    }
}

impl Manifest {
    /// The name of the record with these outputs. Equal outputs have equal names: the same bytes are the same record.
    pub fn record(&self) -> Box<str> {
        let mut text = String::new();
        for output in &self.outputs {
            use std::fmt::Write;
            let mode = if output.executable { "x" } else { "" };
            writeln!(text, "{} {}{mode} {}", output.blake3, output.folder, output.name)
                .expect("a string takes all text");
        }
        Digest::of(text.as_bytes()).to_string()[..16].into()
    }
}

impl Store {
    /// Looks up the result of a key, without checking its objects. A damaged record is quarantined and does not count.
    pub fn lookup(&self, key: Key) -> Result<Option<Published>> {
        if let Some(known) = self.catalog.get(key) {
            return Ok(Some(known));
        }
        let found = self.read_current(key)?;
        if let Some(published) = &found {
            self.catalog.insert(self, published);
        }
        Ok(found)
    }

    fn read_current(&self, key: Key) -> Result<Option<Published>> {
        let folder = self.result(key);
        let Some(record) = self.current(key)? else { return Ok(None) };
        match self.read_manifest(key, &record) {
            Ok(Some(manifest)) => Ok(Some(Published { key, record: record.into(), outputs: manifest.outputs.into() })),
            Ok(None) => Ok(None),
            Err(Error::Damaged { path, why }) => {
                tracing::warn!(
                    "{} is damaged ({why}); it was moved to the quarantine, and the stage runs again",
                    path.display()
                );
                self.set_aside(&folder.join(&*record))?;
                let _ = fs::remove_file(folder.join("current"));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The current record of a key. If none was named, because of a crash between two renames, it is the lowest.
    pub fn current(&self, key: Key) -> Result<Option<Box<str>>> {
        let folder = self.result(key);
        let named = folder.join("current");
        match fs::read_to_string(&named) {
            Ok(text) if folder.join(text.trim()).join("manifest.json").exists() => return Ok(Some(text.trim().into())),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).at("read", &named),
        }
        let lowest = self.records(key)?.into_iter().next();
        if let Some(record) = &lowest {
            match super::write_aside(&named, record.as_bytes()) {
                Err(error) if error.is_refused() => {}
                written => written?,
            }
        }
        Ok(lowest)
    }

    /// All records of a key, sorted. If there is more than one, the key diverges.
    pub fn records(&self, key: Key) -> Result<Vec<Box<str>>> {
        let folder = self.result(key);
        let mut records = vec![];
        for name in names(&folder)? {
            if is_record(&name) && folder.join(&name).join("manifest.json").exists() {
                records.push(name.into());
            }
        }
        records.sort();
        Ok(records)
    }

    /// The manifest of a record. `None` if there is no such record.
    pub fn read_manifest(&self, key: Key, record: &str) -> Result<Option<Manifest>> {
        let path = self.result(key).join(record).join("manifest.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        let damaged = |why: String| Error::Damaged { path: path.clone(), why };
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if manifest.key != key || *manifest.record() != *record {
            return Err(damaged("it belongs to another key or record".into()));
        }
        Ok(Some(manifest))
    }

    /// The preimage in a key's current record.
    pub fn preimage(&self, key: Key) -> Result<Option<Preimage>> {
        let Some(record) = self.current(key)? else { return Ok(None) };
        let path = self.result(key).join(&*record).join("preimage.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| Error::Damaged { path, why: e.to_string() })
    }

    /// The folder of a key's current record.
    pub fn record_folder(&self, published: &Published) -> PathBuf {
        self.result(published.key).join(&*published.record)
    }

    /// How the result was produced.
    pub fn record(&self, published: &Published) -> Result<Option<serde_json::Value>> {
        let path = self.record_folder(published).join("record.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| Error::Damaged { path, why: e.to_string() })
    }

    /// Whether the key's current record changed, or one of its objects is missing or has the wrong length.
    pub fn is_broken(&self, published: &Published) -> bool {
        if !self.catalog.is_current(self, published) {
            return true;
        }
        let whole = |artifact: &Artifact| self.length(artifact.blake3) == Some(artifact.length);
        !published.outputs.iter().all(whole)
    }

    /// Whether every object of a manifest exists with the right length, including the files of its folders.
    pub(super) fn is_whole(&self, manifest: &Manifest) -> bool {
        let there = |digest: Digest, length: u64| self.length(digest) == Some(length);
        manifest.outputs.iter().all(|o| {
            there(o.blake3, o.length)
                && (!o.folder || self.listing(o).is_ok_and(|l| l.files.iter().all(|f| there(f.digest, f.size))))
        })
    }

    /// The length of an object. `None` if it does not exist.
    pub(super) fn length(&self, object: Digest) -> Option<u64> {
        self.directory.stat("objects", object, "").map(|stat| stat.length)
    }

    /// Removes a key from the catalog, so that the next lookup reads the disk. Objects with the wrong length are
    /// quarantined.
    pub fn forget(&self, published: &Published) -> Result<()> {
        self.catalog.remove(published.key);
        for artifact in &*published.outputs {
            let object = self.object(artifact.blake3);
            if fs::metadata(&object).is_ok_and(|m| m.len() != artifact.length) {
                self.set_aside(&object)?;
            }
        }
        Ok(())
    }

    /// The listing of an output that is a folder.
    pub fn listing(&self, artifact: &Artifact) -> Result<Listing> {
        let path = self.object(artifact.blake3);
        let text = fs::read_to_string(&path).at("read", &path)?;
        Listing::parse(&text)
            .map_err(|line| Error::Damaged { path, why: format!("line {line} is not a valid line of a listing") })
    }

    /// Every key with a result.
    pub fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = vec![];
        let results = self.root.join("results");
        for shard in names(&results)? {
            for rest in names(&results.join(&shard))? {
                if let Ok(key) = format!("{shard}{rest}").parse() {
                    keys.push(key);
                }
            }
        }
        keys.sort();
        Ok(keys)
    }
}

/// Whether a name is that of a record, and not a leftover of a killed run, which may look like one otherwise.
fn is_record(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads a file. `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// The names in a folder. Empty if it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).at("read", folder),
    };
    let mut names = vec![];
    for entry in entries {
        names.push(entry.at("read", folder)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
