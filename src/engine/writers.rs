//! Who still writes to what a stage wrote. A process that outlives its stage may hold a file open, and would write into the
//! object that the file becomes.

use std::{
    fs, io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// From linux/fcntl.h.
const F_SETSIG: libc::c_int = 10;

/// Gives a file, and every file below a folder, a new inode where some process holds it open for writing. What is written
/// through the old one is lost. A missing path is passed over, and links are not followed.
///
/// # Errors
/// Where a folder cannot be read, or a file cannot be copied.
pub fn detach(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| detach(&entry?.path()));
    }
    if !meta.is_file() || !is_open_for_writing(path) {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".detached");
    let aside = PathBuf::from(name);
    let copied = fs::copy(path, &aside).and_then(|_| fs::rename(&aside, path));
    if copied.is_err() {
        let _ = fs::remove_file(&aside);
    }
    copied
}

/// Whether some process has a file open, or mapped, for writing: the kernel then grants nobody a lease to read it
/// (fcntl(2)). A file system without leases does not say.
fn is_open_for_writing(path: &Path) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    // SAFETY: calls on an open descriptor that take no pointer. The lease ends when the file is closed. Who opens the file
    // for writing before that makes the kernel signal this process: by SIGURG, which is ignored unless somebody catches
    // it, and not by SIGIO, which ends it.
    let leased = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK)
    };
    leased < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::fs::MetadataExt};

    #[test]
    fn a_file_that_is_open_for_writing_gets_a_new_inode_and_another_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [open, closed] = ["below/open", "closed"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("below")).unwrap();
        [&open, &closed].iter().for_each(|path| fs::write(path, "early").unwrap());
        let inodes = || [&open, &closed].map(|path| fs::metadata(path).unwrap().ino());
        let before = inodes();
        let mut writer = fs::File::options().append(true).open(&open).unwrap();
        detach(folder.path()).unwrap();
        writer.write_all(b"late").unwrap();
        assert_eq!(fs::read_to_string(&open).unwrap(), "early");
        assert!(inodes()[0] != before[0] && inodes()[1] == before[1]);
        assert_eq!(fs::read_dir(folder.path().join("below")).unwrap().count(), 1);
        detach(&folder.path().join("none")).unwrap();
    }
}
