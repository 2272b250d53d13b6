//! One lock per key, held while it is computed.
//!
//! Every lock is a byte of one file, `lock`: the byte whose offset is the start of the key. The kernel holds the lock
//! for as long as a process has the file open (an open-file-description lock), so a crash leaves nothing behind, not
//! even a file. The stage's own process inherits the lock: if only the runner dies, the key stays locked until its last
//! process has ended. Two keys with the same first 63 bits would only wait for each other.

use super::{At, Result, Store};
use crate::key::Key;
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
};

/// A held lock. Dropping it releases it, in every process that inherited it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    key: Key,
}

impl Lock {
    /// The open file, for a child process to inherit.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = control(&self.file, libc::F_OFD_SETLK, &mut range(self.key, libc::F_UNLCK));
    }
}

impl Store {
    /// Locks a key, if no one else holds it.
    pub fn try_lock(&self, key: Key) -> Result<Option<Lock>> {
        // Open the file once per lock: an OFD lock belongs to its open file description.
        let path = self.lock_file();
        let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match control(&file, libc::F_OFD_SETLK, &mut range(key, libc::F_WRLCK)) {
            Ok(()) => Ok(Some(Lock { file, key })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::EACCES) => Ok(None),
            Err(e) => Err(e).at("lock", &path),
        }
    }

    /// Whether this key is being computed right now.
    pub fn is_locked(&self, key: Key) -> bool {
        let mut found = range(key, libc::F_WRLCK);
        // Another user may not write it.
        let file = File::options().write(true).open(self.lock_file()).or_else(|_| File::open(self.lock_file()));
        file.and_then(|file| control(&file, libc::F_OFD_GETLK, &mut found)).is_ok()
            && found.l_type != libc::F_UNLCK as libc::c_short
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// The byte range of a key.
fn range(key: Key, kind: libc::c_int) -> libc::flock {
    let start: [u8; 8] = key.0.0[..8].try_into().expect("eight bytes");
    // SAFETY: plain data, for which zeros are valid; OFD locks require a process number of zero.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    // The last byte cannot be locked: its end would overflow.
    range.l_start = (i64::from_be_bytes(start) & i64::MAX).min(i64::MAX - 1);
    range.l_len = 1;
    range
}

fn control(file: &File, command: libc::c_int, range: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor and the range are valid for the length of the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, range as *mut libc::flock) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_key_is_locked_once_and_keys_are_independent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (a, b) = (Key(Digest([0xff; 32])), Key(Digest::of(b"b")));
        let held = store.try_lock(a).unwrap().unwrap();
        assert!(store.try_lock(a).unwrap().is_none() && store.is_locked(a) && !store.is_locked(b));
        let other = store.try_lock(b).unwrap().unwrap();
        drop(held);
        assert!(!store.is_locked(a) && store.is_locked(b));
        drop(other);
        assert!(store.try_lock(b).unwrap().is_some());
    }

    #[test]
    fn a_lock_is_released_even_if_a_process_inherited_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Key(Digest::of(b"k"));
        let held = store.try_lock(key).unwrap().unwrap();
        let copy = held.file.try_clone().unwrap();
        drop(held);
        assert!(!store.is_locked(key), "a stage's left-over process must not keep the key");
        drop(copy);
    }
}
