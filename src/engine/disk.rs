//! The free space on a file system.

use std::path::Path;

/// The free space available to unprivileged users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Blocks, the smallest unit of allocation.
    pub blocks: u64,
    /// Files. `None` if the file system has no such limit.
    pub files: Option<u64>,
}

impl Space {
    /// The free space on the file system of a folder. `None` if the folder does not exist or the system call fails.
    pub fn of(folder: &Path) -> Option<Space> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let path = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: the kernel fills the structure, which is plain data.
        let left = unsafe {
            let mut left: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut left) == 0).then_some(left)
        }?;
        // A file system without a limit on files reports 0 of 0.
        let files = (left.f_files > 0).then_some(left.f_favail as u64);
        Some(Space { bytes: left.f_bavail as u64 * left.f_frsize as u64, blocks: left.f_bavail as u64, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_existing_folder_has_space() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Space::of(folder.path()).is_some_and(|space| space.bytes >= space.blocks));
        assert_eq!(Space::of(&folder.path().join("none")), None);
        assert!(Space::of(Path::new("")).is_some());
    }
}
