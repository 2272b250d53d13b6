//! How much the file system of a folder still takes.

use std::path::Path;

/// What an ordinary user may still write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Blocks, the smallest things that are given out.
    pub blocks: u64,
    /// Files. None: the file system keeps no such number.
    pub files: Option<u64>,
}

impl Space {
    /// The space left on the file system of a folder. None: the folder is not there, or the system does not say.
    pub fn of(folder: &Path) -> Option<Space> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let path = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: the kernel fills the structure, which is plain data.
        let left = unsafe {
            let mut left: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut left) == 0).then_some(left)
        }?;
        // A file system without a number of files to give says 0 of 0.
        let files = (left.f_files > 0).then_some(left.f_favail as u64);
        Some(Space { bytes: left.f_bavail as u64 * left.f_frsize as u64, blocks: left.f_bavail as u64, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_space_and_what_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Space::of(folder.path()).is_some_and(|space| space.bytes >= space.blocks));
        assert_eq!(Space::of(&folder.path().join("none")), None);
        assert!(Space::of(Path::new("")).is_some());
    }
}
