//! Publishing: durable records, many at a time.
//!
//! A record's folder is written under a temporary name, everything new is synced, and only then is the folder renamed
//! into place. Syncing is expensive, so results that finish close together share it.

use super::{Artifact, At, Cause, Manifest, Published, Result, Store, write_aside};
use crate::key::Key;
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// The file of a record with its attestation.
pub const ATTESTATION: &str = "attestation.json";

/// From this many new files on, syncing the whole file system is cheaper than syncing each file.
const MANY: usize = 24;

/// A result that is to be published.
#[derive(Debug)]
pub struct Pending {
    /// Its key.
    pub key: Key,
    /// Its preimage.
    pub preimage: String,
    /// Its outputs, already stored as objects.
    pub outputs: Vec<Artifact>,
    /// How it was produced.
    pub record: serde_json::Value,
    /// Its attestation.
    pub attestation: Option<String>,
    /// Whether it replaces a record of the same bytes.
    pub supersedes: bool,
    /// Its log, moved into the record.
    pub log: Option<PathBuf>,
    /// Its by-products, moved into the record.
    pub byproducts: Option<PathBuf>,
    /// Objects that are new and not yet synced.
    pub fresh: Vec<PathBuf>,
}

impl Pending {
    /// A result without outputs.
    pub fn new(key: Key, preimage: String) -> Self {
        Pending {
            key,
            preimage,
            outputs: vec![],
            record: serde_json::Value::Null,
            attestation: None,
            supersedes: false,
            log: None,
            byproducts: None,
            fresh: vec![],
        }
    }

    /// The texts of its record, by file, that its attestation covers. The manifest is the last.
    pub fn texts(&self) -> [(&'static str, String); 3] {
        let manifest = serde_json::to_string_pretty(&self.manifest()).expect("a manifest is JSON");
        [
            ("preimage.json", self.preimage.clone()),
            ("record.json", format!("{:#}\n", self.record)),
            ("manifest.json", manifest + "\n"),
        ]
    }

    /// The name of its record.
    pub fn record_name(&self) -> Box<str> {
        self.manifest().record()
    }

    fn manifest(&self) -> Manifest {
        Manifest { format: 1, key: self.key, outputs: self.outputs.clone() }
    }
}

/// A published result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The key's current result.
    pub published: Published,
    /// The earlier record of different bytes, if the key diverges.
    pub diverges: Option<Box<str>>,
}

impl Store {
    /// Publishes results. All of them are on disk when this returns.
    pub fn commit(&self, batch: &[Pending]) -> Result<Vec<Committed>> {
        let mut staged = Vec::with_capacity(batch.len());
        for pending in batch {
            staged.push(self.stage(pending)?);
        }
        self.sync(batch, &staged)?;
        self.note_use(batch.iter().map(|pending| pending.key))?;
        batch.iter().zip(staged).map(|(pending, aside)| self.reveal(pending, &aside)).collect()
    }

    /// Writes the record's folder under a temporary name.
    fn stage(&self, pending: &Pending) -> Result<PathBuf> {
        let folder = self.result(pending.key);
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => drop_leftovers(&folder)?,
            Err(_) => fs::create_dir_all(&folder).at("create", &folder)?,
        }
        let aside = folder.join(self.unique());
        let written = self.write_record(pending, &aside);
        if written.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        written.map(|()| aside)
    }

    fn write_record(&self, pending: &Pending, aside: &Path) -> Result<()> {
        fs::create_dir(aside).at("create", aside)?;
        let write = |name: &str, text: &str| fs::write(aside.join(name), text).at("write", &aside.join(name));
        for (from, name) in [(&pending.log, "log"), (&pending.byproducts, "byproducts")] {
            if let Some(from) = from {
                match fs::rename(from, aside.join(name)) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other.at("move", from)?,
                }
            }
        }
        if let Some(attestation) = &pending.attestation {
            write(ATTESTATION, attestation)?;
        }
        pending.texts().iter().try_for_each(|(name, text)| write(name, text))
    }

    /// Syncs the store's file system.
    pub(super) fn sync_all(&self) -> Result<()> {
        let root = File::open(&self.root).at("open", &self.root)?;
        // SAFETY: the descriptor is open for the length of the call.
        let done = unsafe { libc::syncfs(root.as_raw_fd()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()).at("sync", &self.root) }
    }

    fn sync(&self, batch: &[Pending], staged: &[PathBuf]) -> Result<()> {
        let objects: usize = batch.iter().map(|p| p.fresh.len()).sum();
        if objects + 5 * batch.len() >= MANY {
            return self.sync_all();
        }
        let sync = |path: &Path| File::open(path).and_then(|f| f.sync_all()).at("sync", path);
        for object in batch.iter().flat_map(|p| &p.fresh) {
            sync(object)?;
            sync(object.parent().expect("objects are in a shard"))?;
        }
        for folder in staged {
            for name in ["preimage.json", "record.json", "manifest.json"] {
                sync(&folder.join(name))?;
            }
            if folder.join(ATTESTATION).exists() {
                sync(&folder.join(ATTESTATION))?;
            }
            sync(folder)?;
        }
        Ok(())
    }

    /// Replaces a record by another folder. A crash in between leaves the key without the record, and its stage runs
    /// again.
    pub(super) fn replace(&self, record: &Path, by: &Path) -> Result<()> {
        let old = record.with_file_name(self.unique());
        fs::rename(record, &old).at("set aside", record)?;
        fs::rename(by, record).at("publish", record)?;
        fs::remove_dir_all(&old).at("remove", &old)
    }

    /// Renames the record's folder into place and makes it the key's current record, unless there already is one.
    fn reveal(&self, pending: &Pending, aside: &Path) -> Result<Committed> {
        let folder = self.result(pending.key);
        let record = pending.record_name();
        let before = self.current(pending.key)?;
        match fs::rename(aside, folder.join(&*record)) {
            Ok(()) => {}
            // The same bytes were published before, by a record that is unsigned or was tampered with.
            Err(_) if pending.supersedes && folder.join(&*record).is_dir() => {
                self.replace(&folder.join(&*record), aside)?;
            }
            // The same bytes were published before: keep that record.
            Err(_) if folder.join(&*record).is_dir() => fs::remove_dir_all(aside).at("remove", aside)?,
            Err(e) => return Err(e).at("publish", &folder),
        }
        let first = before.is_none();
        let diverges = before.filter(|before| *before != record);
        let whole =
            |record: &str| self.read_manifest(pending.key, record).is_ok_and(|m| m.is_some_and(|m| self.is_whole(&m)));
        // Never switch silently: the older record stays current until the user decides, as long as it is complete.
        let standing = match &diverges {
            Some(before) if whole(before) => before.clone(),
            // If a crash truncates this file, it names no record, and its next reader writes it again.
            None if first => {
                let current = folder.join("current");
                fs::write(&current, record.as_bytes()).at("write", &current)?;
                record.clone()
            }
            _ => {
                write_aside(&folder.join("current"), record.as_bytes())?;
                record.clone()
            }
        };
        if let Some(before) = &diverges {
            let other = if standing == record { before } else { &record };
            self.note_divergence(pending.key, &standing, other, Cause::Rerun)?;
        }
        self.drop_tombstones(pending.key)?;
        let outputs = if standing == record {
            pending.outputs.clone()
        } else {
            self.read_manifest(pending.key, &standing)?.map(|m| m.outputs).unwrap_or_default()
        };
        let published = Published { key: pending.key, record: standing.into(), outputs: outputs.into() };
        self.catalog.insert(self, &published);
        Ok(Committed { published, diverges })
    }
}

/// Whether a record exists and has no attestation.
pub(super) fn is_unsigned(record: &Path) -> bool {
    record.join("manifest.json").exists() && !record.join(ATTESTATION).exists()
}

/// Removes temporary folders beside a key's records that dead processes of this host left.
fn drop_leftovers(folder: &Path) -> Result<()> {
    let ours = format!("partial-{}-", super::host());
    for name in super::result::names(folder)? {
        let process = name.strip_prefix(&ours).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|number| !is_alive(number)) {
            let path = folder.join(&name);
            fs::remove_dir_all(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

/// Whether a process of this host runs. A zombie does not.
fn is_alive(number: &str) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(number).join("stat")) else { return false };
    // The state follows the name, which may itself contain brackets.
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}
