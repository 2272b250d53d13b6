//! Finds the file of a program by name.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Finds the program's file: the name itself if it has a slash, or else the first match in the folders of `path`.
/// Relative paths start at `from`.
pub fn find(name: &str, path: &OsStr, from: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(from.join(name));
    }
    let mut candidates = std::env::split_paths(path).map(|folder| from.join(folder).join(name));
    candidates.find(|file| file.is_file() && is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    // SAFETY: the text lives for the length of the call.
    CString::new(file.as_os_str().as_bytes()).is_ok_and(|file| unsafe { libc::access(file.as_ptr(), libc::X_OK) == 0 })
}
