//! The store on disk: results by key, and their bytes by digest.
//!
//! ```text
//! VERSION                            the layout's version
//! objects/ab/cdef…                   bytes by BLAKE3, read-only; a folder is stored as its listing
//! results/ab/cdef…/<record>/         preimage.json, manifest.json, record.json, attestation.json, log, byproducts/
//! results/ab/cdef…/current           the key's current record
//! work/<key>/                        a stage in progress; survives a crash
//! lock                               one byte is locked for each key that is being computed
//! trees/<digest>/                    folders assembled from their objects (hard links)
//! collected/ab/cdef….json            the tombstones of a collected result: texts, no bytes
//! divergences/<key>/                 notes of results of different bytes under one key
//! verdicts/<key>/                    signed verdicts of reruns
//! quarantine/<digest>                objects whose bytes do not match their name
//! hosts/<host>/                      caches: the catalog of results, the stat cache
//! names/<pipeline>                   the last key of each stage, for `why`
//! runs/<start>-<pid>.jsonl           the request, attempts and hits of each run, for `history`
//! uses/                              leases of runs in progress, which protect results from collection
//! listings/                          listings of folders outside the store, for `why`
//! ```
//!
//! No file is a database that two hosts write: every file is renamed into place when it is complete. A record's folder
//! is renamed into place after its content and its objects are on disk, so a visible record is complete.

mod catalog;
mod collect;
mod commit;
mod copy;
mod directory;
mod divergences;
mod leases;
mod lock;
mod object;
mod result;
mod tombstones;
mod verify;

pub use collect::{Collected, Limits};
pub use commit::{ATTESTATION, Committed, Pending};
pub use copy::Copied;
pub use divergences::{Cause, Divergence};
use leases::Lease;
pub use leases::Quiet;
pub use lock::Lock;
pub use object::IngestError;
pub use result::{Artifact, Manifest, Published};
pub use tombstones::Tombstone;
use verify::Checked;
pub use verify::{Check, Finding};

use super::{digest::Digest, disk::Space, key::Key, regular, stat};
use catalog::Catalog;
use directory::Directory;
use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// The layout version that this program writes.
pub const LAYOUT: u32 = 1;

/// A store on disk.
pub struct Store {
    root: PathBuf,
    directory: Directory,
    catalog: Catalog,
    /// Digests of files outside the store.
    pub stat: stat::Cache,
    counter: AtomicU64,
    /// What this process has verified.
    checked: Mutex<HashSet<Checked>>,
    lease: Mutex<Option<Lease>>,
}

/// A failed operation on the store: the verb, the path and the system's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An I/O error.
    #[error("cannot {what} {path}: {error}{hint}", path = path.display(), hint = hint(what, error))]
    Io {
        /// The verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// An I/O error at a place that is not in the store.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    Outside {
        /// The verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// A file of the store is damaged.
    #[error("{path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store was written by a newer version.
    #[error("{root} has layout {found}, this caco knows layouts up to {LAYOUT}; use a newer caco, or another store with --cache", root = root.display())]
    Newer {
        /// The store.
        root: PathBuf,
        /// Its layout.
        found: String,
    },
}

/// The advice for a full disk.
pub const MAKE_ROOM: &str =
    "; free some space (`caco cache gc` shows what can be removed) and run again: no finished result is lost";

fn hint(what: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MAKE_ROOM,
        _ if is_refused(error) && !matches!(what, "read" | "find") => {
            "; the store must be writable: choose another with --cache or CACO_CACHE"
        }
        _ => "",
    }
}

/// Whether the caller lacks a right, as in a store of another user.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

impl Error {
    /// The same error, at a place that is not in the store.
    pub fn outside(self) -> Error {
        match self {
            Error::Io { what, path, error } => Error::Outside { what, path, error },
            other => other,
        }
    }

    /// Whether it is that the store may only be read.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Io { error, .. } if is_refused(error))
    }
}

/// A result with the store's own error.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns an I/O error into the store's, with the verb and the path.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io { what, path: path.into(), error })
    }
}

impl Store {
    /// Whether there is a store at `root`, of any version.
    pub fn is_at(root: &Path) -> bool {
        fs::read_to_string(root.join("VERSION")).is_ok_and(|text| text.trim().parse::<u32>().is_ok())
    }

    /// Opens the store at `root`, and creates it if necessary.
    pub fn open(root: &Path) -> Result<Store> {
        let root = std::path::absolute(root).at("find", root)?;
        fs::create_dir_all(&root).at("create", &root)?;
        let version = root.join("VERSION");
        match fs::read_to_string(&version) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found <= LAYOUT => {}
                _ => return Err(Error::Newer { root, found: text.trim().into() }),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => write_aside(&version, format!("{LAYOUT}\n").as_bytes())?,
            Err(e) => return Err(e).at("read", &version),
        }
        for folder in ["objects", "results", "work"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        let directory = Directory::open(&root).at("open", &root)?;
        let host = root.join("hosts").join(host());
        let catalog = Catalog::load(&host.join("catalog.bin"));
        let stat = stat::Cache::load(&host.join("stat.bin"));
        Ok(Store {
            root,
            directory,
            catalog,
            stat,
            counter: AtomicU64::new(0),
            checked: Mutex::default(),
            lease: Mutex::default(),
        })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the disk is practically full: less than a block for every file of a small result, or too few files.
    pub fn is_full(&self) -> bool {
        const FILES: u64 = 12;
        Space::of(&self.root).is_some_and(|left| left.blocks < FILES || left.files.is_some_and(|files| files < FILES))
    }

    /// The folder of a stage in progress.
    pub fn work(&self, key: Key) -> PathBuf {
        self.root.join("work").join(key.to_string())
    }

    /// A path in the store at which there is nothing, for what is about to move or to be removed.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join("work").join(self.unique())
    }

    /// The folder that holds the records of a key.
    pub fn result(&self, key: Key) -> PathBuf {
        self.sharded("results", key.0)
    }

    /// The file that holds the bytes of this digest.
    pub fn object(&self, digest: Digest) -> PathBuf {
        self.sharded("objects", digest)
    }

    /// The folder that is assembled from the objects of a listing.
    fn tree(&self, listing: Digest) -> PathBuf {
        self.root.join("trees").join(listing.to_string())
    }

    fn sharded(&self, folder: &str, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        let mut path = String::with_capacity(self.root.as_os_str().len() + 80);
        path.push_str(&self.root.to_string_lossy());
        for part in [folder, &hex[..2], &hex[2..]] {
            path.push('/');
            path.push_str(part);
        }
        path.into()
    }

    /// A temporary name that no other process or thread uses.
    fn unique(&self) -> String {
        format!("partial-{}-{}-{}", host(), std::process::id(), self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes the caches to disk. Failures only cost time.
    pub fn save_accelerators(&self) {
        for result in [self.stat.save(), self.catalog.save()] {
            if let Err(error) = result {
                tracing::debug!("cannot save a cache: {error}");
            }
        }
    }
}

/// Writes a small file atomically: under a temporary name, then renamed.
pub fn write_aside(path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = path.with_extension(format!("partial-{}", std::process::id()));
    let written = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written.at("write", path)
}

/// Copies a file's bytes.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    copy_into(from, fs::File::create(to).at("write", to)?, to)
}

/// Copies a file's bytes into a new file at `to`.
fn copy_into(from: &Path, mut target: fs::File, to: &Path) -> Result<()> {
    let mut source = regular::open(from).at("read", from)?;
    io::copy(&mut source, &mut target).at("write", to).map(drop)
}

/// This machine's name.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    if name.is_empty() { "host".into() } else { name }
}

/// Removes a folder and everything in it, if it exists, also where its owner took from themself the right to.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(folder)?;
            fs::remove_dir_all(folder)
        }
        other => other,
    }
}

fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Creates a folder and its parents.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).at("create", folder)
}
