//! Folders of published stages, which are removed together. ext4 searches the inodes that were freed in the last seconds one by
//! one whenever it creates a file: to remove each folder at once slows the stages after it, up to a half.

use super::{
    disk::Space,
    store::{self, Store},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that wait for their removal. They are removed when this is dropped.
#[derive(Debug, Default)]
pub struct Discarded(Vec<PathBuf>);

/// The maximum number of folders that wait.
const FOLDERS: usize = 4096;
/// A folder that holds more bytes is removed at once.
const BYTES: u64 = 1 << 20;
/// With less room on the disk, in bytes and in files, nothing waits.
const ROOM: (u64, u64) = (1 << 30, 1 << 17);

impl Discarded {
    /// Takes a folder away from its path. Errors are ignored: a collection finds what is left.
    pub fn add(&mut self, store: &Store, folder: &Path) {
        let aside = store.aside();
        let room = has_room(store);
        if !room || self.0.len() == FOLDERS {
            self.remove();
        }
        if room && holds_at_most(folder, &mut { BYTES }) && fs::rename(folder, &aside).is_ok() {
            self.0.push(aside);
        } else {
            let _ = store::remove_folder(folder);
        }
    }

    fn remove(&mut self) {
        self.0.drain(..).for_each(|folder| _ = store::remove_folder(&folder));
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        self.remove();
    }
}

fn has_room(store: &Store) -> bool {
    let enough = |left: Space| left.bytes > ROOM.0 && left.files.is_none_or(|files| files > ROOM.1);
    Space::of(store.root()).is_some_and(enough)
}

/// Whether the files below a folder have no more bytes than are left, which they use up.
fn holds_at_most(folder: &Path, left: &mut u64) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else { return false };
    entries.all(|entry| {
        let Ok(Ok(meta)) = entry.as_ref().map(fs::DirEntry::metadata) else { return false };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        let fits = size <= *left;
        *left = left.saturating_sub(size);
        fits && (!meta.is_dir() || entry.is_ok_and(|entry| holds_at_most(&entry.path(), left)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_folder_is_removed_at_once_and_a_small_one_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let [small, large] = ["small", "large"].map(|name| folder.path().join(name));
        for (path, bytes) in [(&small, 10), (&large, BYTES + 1)] {
            fs::create_dir_all(path.join("below")).unwrap();
            fs::File::create(path.join("below/file")).unwrap().set_len(bytes).unwrap();
        }
        let left = || fs::read_dir(store.root().join("work")).unwrap().count();
        let mut discarded = Discarded::default();
        [&small, &large].into_iter().for_each(|path| discarded.add(&store, path));
        assert!(!small.exists() && !large.exists());
        // None where the disk of temporary files is nearly full.
        assert_eq!(left(), usize::from(has_room(&store)));
        drop(discarded);
        assert_eq!(left(), 0);
    }
}
