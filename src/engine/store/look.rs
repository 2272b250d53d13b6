//! What `stat` says of the store's files, many thousand at a time: from the open folder on, so that the system need not
//! walk down to the store each time.

use crate::digest::Digest;
use std::{fs::File, io, mem::MaybeUninit, os::fd::AsRawFd, path::Path};

/// The store's folder, open.
pub(super) struct Look {
    folder: File,
}

/// What identifies the state of a file, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The file's number.
    pub inode: u64,
    /// When it last changed, nanoseconds.
    pub ctime: i64,
    /// Its length, bytes.
    pub length: u64,
}

impl Look {
    /// Opens the folder.
    pub fn open(root: &Path) -> io::Result<Look> {
        File::open(root).map(|folder| Look { folder })
    }

    /// What stands at `<folder>/ab/cdef…<rest>`, for a digest `abcdef…`. None: nothing that can be looked at.
    pub fn at(&self, folder: &str, digest: Digest, rest: &str) -> Option<Seen> {
        // Three parts of a path, two slashes and the zero that ends it, without taking memory.
        let mut path = [0u8; 128];
        let hex = digest.hex();
        let mut end = 0;
        for part in [folder.as_bytes(), b"/", &hex[..2], b"/", &hex[2..], rest.as_bytes()] {
            path[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the path ends with a zero, and the structure is read only where the call filled it.
        let found = unsafe {
            let done = libc::fstatat(self.folder.as_raw_fd(), path.as_ptr().cast(), found.as_mut_ptr(), 0);
            (done == 0).then(|| found.assume_init())
        }?;
        let ctime = found.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(found.st_ctime_nsec);
        Some(Seen { inode: found.st_ino, ctime, length: found.st_size as u64 })
    }
}
