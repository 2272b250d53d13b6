//! Publishing: records that survive a loss of power, many at a time.
//!
//! A record's folder is written aside, everything new is synced, and only then is the folder renamed into place. Syncing
//! is what costs, so results that end close together share it.

use super::{Artifact, At, Cause, Manifest, Published, Result, Store, write_aside};
use crate::key::Key;
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// The file of a record that holds the signed statement about it.
pub const ATTESTATION: &str = "attestation.json";

/// From so many new files on, one sync of the whole file system is cheaper than one a file.
const MANY: usize = 24;

/// A result on its way into the store.
#[derive(Debug)]
pub struct Pending {
    /// Its key.
    pub key: Key,
    /// Its preimage.
    pub preimage: String,
    /// Its outputs, already among the objects.
    pub outputs: Vec<Artifact>,
    /// How it was made.
    pub record: serde_json::Value,
    /// The signed statement about it.
    pub attestation: Option<String>,
    /// Whether it takes the place of a record of the same bytes.
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

    /// The texts of its record, by file, that a statement about it speaks of. The manifest is the last.
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

/// What became of a published result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The result that now stands for the key.
    pub published: Published,
    /// The record of other bytes that was there before: the key diverges.
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

    /// Writes the record's folder aside.
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

    /// Everything on the store's file system is on disk when this returns.
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
            sync(object.parent().expect("objects lie in a shard"))?;
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

    /// Puts another folder in a record's place. A crash in between leaves the key without the record, and its stage runs
    /// again.
    pub(super) fn replace(&self, record: &Path, by: &Path) -> Result<()> {
        let old = record.with_file_name(self.unique());
        fs::rename(record, &old).at("set aside", record)?;
        fs::rename(by, record).at("publish", record)?;
        fs::remove_dir_all(&old).at("remove", &old)
    }

    /// Renames the record's folder into place and lets it stand for the key, unless another one already does.
    fn reveal(&self, pending: &Pending, aside: &Path) -> Result<Committed> {
        let folder = self.result(pending.key);
        let record = pending.record_name();
        let before = self.current(pending.key)?;
        match fs::rename(aside, folder.join(&*record)) {
            Ok(()) => {}
            // The same bytes were published before, by a record that nobody signed or that was tampered with.
            Err(_) if pending.supersedes && folder.join(&*record).is_dir() => {
                self.replace(&folder.join(&*record), aside)?;
            }
            // The same bytes were published before: that record stays.
            Err(_) if folder.join(&*record).is_dir() => fs::remove_dir_all(aside).at("remove", aside)?,
            Err(e) => return Err(e).at("publish", &folder),
        }
        let first = before.is_none();
        let diverges = before.filter(|before| *before != record);
        let whole =
            |record: &str| self.read_manifest(pending.key, record).is_ok_and(|m| m.is_some_and(|m| self.is_whole(&m)));
        // Nothing is preferred silently: the older record stands until somebody decides, as long as it is whole.
        let standing = match &diverges {
            Some(before) if whole(before) => before.clone(),
            // Cut short by a crash, this file would name no record, and be written again by whoever reads it.
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
        self.drop_remains(pending.key)?;
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

/// Whether a record is there, and no signed statement in it.
pub(super) fn is_unsigned(record: &Path) -> bool {
    record.join("manifest.json").exists() && !record.join(ATTESTATION).exists()
}

/// Removes what a process of this host that is gone left beside a key's records.
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

/// Whether a process of this host runs. One that has ended and that nobody has waited for yet does not.
fn is_alive(number: &str) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(number).join("stat")) else { return false };
    // The state stands behind the name, which may hold brackets itself.
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}
