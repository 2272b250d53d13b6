//! The file of a program, by name.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The program's file: as named where the name has a slash, else the first of that name in the folders of `path`. Relative
/// ones start at `from`.
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
