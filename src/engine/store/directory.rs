//! Fast `stat` of the store's files. Paths are relative to the open folder, so that the kernel does not resolve the
//! path of the store each time.

use crate::digest::Digest;
use std::{fs::File, io, mem::MaybeUninit, os::fd::AsRawFd, path::Path};

/// The store's folder, open.
pub(super) struct Directory {
    folder: File,
}

/// The state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStat {
    /// The inode number.
    pub inode: u64,
    /// The change time, in nanoseconds.
    pub ctime: i64,
    /// The length, in bytes.
    pub length: u64,
}

impl Directory {
    /// Opens the folder.
    pub fn open(root: &Path) -> io::Result<Directory> {
        File::open(root).map(|folder| Directory { folder })
    }

    /// Calls `stat` on `<folder>/ab/cdef…<rest>`, for a digest `abcdef…`. `None` if that fails.
    pub fn stat(&self, folder: &str, digest: Digest, rest: &str) -> Option<FileStat> {
        // The path and its terminating zero, without allocating memory.
        let mut path = [0u8; 128];
        let hex = digest.hex();
        let mut end = 0;
        for part in [folder.as_bytes(), b"/", &hex[..2], b"/", &hex[2..], rest.as_bytes()] {
            path[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the path ends with a zero, and the structure is read only if the call filled it.
        let found = unsafe {
            let done = libc::fstatat(self.folder.as_raw_fd(), path.as_ptr().cast(), found.as_mut_ptr(), 0);
            (done == 0).then(|| found.assume_init())
        }?;
        let ctime = found.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(found.st_ctime_nsec);
        Some(FileStat { inode: found.st_ino, ctime, length: found.st_size as u64 })
    }
}
