//! What runs in progress use, so that a collection takes nothing from under them.
//!
//! A run keeps a file `uses/<name>` locked for as long as it lives and lists there every result it may read. A second
//! lock, `uses/.collecting`, is held shared while results are looked up and noted, and while a finished stage's outputs
//! are taken in and published; a collection holds it alone. Both are `flock`s: a crash leaves none behind.

use super::{At, Error, Result, Store, result::names};
use crate::key::Key;
use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::PathBuf,
};

/// A run's list of results in use. Dropping it lets go of them.
#[derive(Debug)]
pub(super) struct Use {
    file: File,
    path: PathBuf,
}

/// While this is held, no collection removes anything.
#[derive(Debug)]
pub struct Quiet {
    /// None: on a read-only file system nothing can be collected either.
    _file: Option<File>,
}

impl Drop for Use {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Starts this process's list of results in use; it ends with the store's handle.
    pub fn begin_use(&self) -> Result<()> {
        let path = self.uses_folder()?.join(self.unique());
        let file = File::options().create_new(true).append(true).open(&path).at("create", &path)?;
        file.lock().at("lock", &path)?;
        *self.in_use.lock().expect("no panic while held") = Some(Use { file, path });
        Ok(())
    }

    /// Notes results that this process may read from now on, if it began a list.
    pub fn note_use(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let mut in_use = self.in_use.lock().expect("no panic while held");
        let Some(Use { file, path }) = in_use.as_mut() else { return Ok(()) };
        let text: String = keys.into_iter().map(|key| format!("{key}\n")).collect();
        file.write_all(text.as_bytes()).at("write", path)
    }

    /// Keeps collections away; waits for one in progress.
    pub fn quiet(&self) -> Result<Quiet> {
        let (file, path) = match self.collecting() {
            Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Ok(Quiet { _file: None });
            }
            other => other?,
        };
        file.lock_shared().at("lock", &path)?;
        Ok(Quiet { _file: Some(file) })
    }

    /// Waits until nobody looks up or publishes, and keeps it so.
    pub(super) fn alone(&self) -> Result<Quiet> {
        let (file, path) = self.collecting()?;
        file.lock().at("lock", &path)?;
        Ok(Quiet { _file: Some(file) })
    }

    fn collecting(&self) -> Result<(File, PathBuf)> {
        let path = self.uses_folder()?.join(".collecting");
        let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        Ok((file, path))
    }

    fn uses_folder(&self) -> Result<PathBuf> {
        let folder = self.root.join("uses");
        super::make_folder(&folder)?;
        Ok(folder)
    }

    /// The results that runs in progress use. Lists that crashed runs left are removed.
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
