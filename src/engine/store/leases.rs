//! Leases of runs in progress on results, which protect the results from collection.
//!
//! A run keeps a file `uses/<name>` locked while it lives, and lists in it every result that it may read. A second
//! lock, `uses/.collecting`, is shared while results are looked up and leased, and while a finished stage's outputs are
//! stored and published; a collection holds it exclusively. Both are `flock`s: a crash leaves none behind.

use super::{At, Result, Store, result::names};
use crate::key::Key;
use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::PathBuf,
};

/// A run's list of results in use. Dropping it releases them.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    path: PathBuf,
}

/// A lock that keeps collections from removing anything while it is held.
#[derive(Debug)]
pub struct Quiet {
    /// `None` where the store may only be read and nobody ever looked up a result for a run.
    _file: Option<File>,
}

/// The file of the lock that a collection holds.
const COLLECTING: &str = "uses/.collecting";

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Creates this process's lease, which lasts as long as the store's handle.
    pub fn begin_use(&self) -> Result<()> {
        let path = self.uses_folder()?.join(self.unique());
        let file = File::options().create_new(true).append(true).open(&path).at("create", &path)?;
        file.lock().at("lock", &path)?;
        *self.lease.lock().expect("no panic while held") = Some(Lease { file, path });
        Ok(())
    }

    /// Adds results that this process may read to its lease, if it has one.
    pub fn note_use(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let mut lease = self.lease.lock().expect("no panic while held");
        let Some(Lease { file, path }) = lease.as_mut() else { return Ok(()) };
        let text: String = keys.into_iter().map(|key| format!("{key}\n")).collect();
        file.write_all(text.as_bytes()).at("write", path)
    }

    /// Blocks collections; waits for one in progress.
    pub fn quiet(&self) -> Result<Quiet> {
        let (file, path) = match self.collecting() {
            // Who may only read the store needs no more for a shared lock.
            Err(error) if error.is_refused() => {
                let path = self.root.join(COLLECTING);
                match File::open(&path) {
                    Ok(file) => (file, path),
                    Err(_) => return Ok(Quiet { _file: None }),
                }
            }
            other => other?,
        };
        file.lock_shared().at("lock", &path)?;
        Ok(Quiet { _file: Some(file) })
    }

    /// Locks exclusively: waits for lookups and publications to end, and blocks new ones.
    pub(super) fn alone(&self) -> Result<Quiet> {
        let (file, path) = self.collecting()?;
        file.lock().at("lock", &path)?;
        Ok(Quiet { _file: Some(file) })
    }

    fn collecting(&self) -> Result<(File, PathBuf)> {
        self.uses_folder()?;
        let path = self.root.join(COLLECTING);
        let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        Ok((file, path))
    }

    fn uses_folder(&self) -> Result<PathBuf> {
        let folder = self.root.join("uses");
        super::make_folder(&folder)?;
        Ok(folder)
    }

    /// The results that runs in progress use. Removes the leases of crashed runs.
    pub(super) fn used(&self) -> Result<HashSet<Key>> {
        let folder = self.root.join("uses");
        let mut used = HashSet::new();
        for run in names(&folder)?.into_iter().filter(|name| !name.starts_with('.')) {
            let path = folder.join(run);
            let Ok(mut file) = File::open(&path) else { continue };
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).at("read", &path)?;
                    used.extend(text.lines().filter_map(|line| line.parse::<Key>().ok()));
                }
                _ => drop(fs::remove_file(&path)),
            }
        }
        Ok(used)
    }
}
