//! One lock a key, held while it is computed.
//!
//! The lock is `flock`'s, on an open file: it is the kernel that holds it, for as long as a process has the file open, so
//! a crash leaves none behind. The stage's own process inherits it: where only the runner dies, the key stays locked
//! until its last process is gone.

use super::{At, Result, Store};
use crate::engine::key::Key;
use std::{
    fs::{self, File, TryLockError},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

/// A held lock. Dropping it lets go, and removes the file.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// The open file, for a child process to inherit.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while held: whoever opened the file before sees that its name is gone, and opens anew.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

impl Store {
    /// Locks a key, if nobody else holds it.
    pub fn try_lock(&self, key: Key) -> Result<Option<Lock>> {
        let path = self.root.join("locks").join(key.to_string());
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
            }
            let ours = file.metadata().at("read", &path)?;
            let same = fs::metadata(&path).is_ok_and(|named| named.ino() == ours.ino() && named.dev() == ours.dev());
            if same {
                return Ok(Some(Lock { file, path }));
            }
        }
    }

    /// Whether somebody computes this key right now.
    pub fn is_locked(&self, key: Key) -> bool {
        let path = self.root.join("locks").join(key.to_string());
        File::options()
            .write(true)
            .open(path)
            .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}
