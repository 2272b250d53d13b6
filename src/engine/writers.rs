//! Finds files that a process still has open for writing. One that outlives its stage would write into the object that the
//! file becomes.

use std::{
    fs::OpenOptions,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

/// From linux/fcntl.h.
const F_SETSIG: libc::c_int = 10;

/// Whether a process has a file open, or mapped, for writing: the kernel then refuses a lease to read it (fcntl(2)). No
/// answer, and so false, for a file of another user and on a file system without leases.
pub fn has_writer(path: &Path) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    // SAFETY: calls on an open descriptor that take no pointer. The lease ends when the file is closed. Who opens the file
    // for writing before that makes the kernel signal this process: by SIGURG, which is ignored unless somebody catches
    // it, and not by SIGIO, which ends it.
    let leased = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK)
    };
    leased < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}
