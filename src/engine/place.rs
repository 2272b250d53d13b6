//! Places a command's inputs in its folder: as files and folders, never as links, so that `find`, `tar` and a script that looks
//! beside itself find the same for every input, whatever its size and origin.
//!
//! What is small is copied. What is large is mounted, read-only, or copied where the machine offers no mounts.

use super::{
    external::External,
    mounts::Mounts,
    walk::{Place, Walk, is_executable},
};
use anyhow::{Context, Result};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, Metadata},
    io, iter,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// A file of more bytes than this is large, and so is a folder whose files have more.
const BYTES: u64 = 16 << 20;
/// A folder of more files than this is large.
const FILES: usize = 1000;

/// An input that a stage is given.
#[derive(Debug)]
pub struct Given<'a> {
    /// The stage's name for it.
    pub slot: &'a str,
    /// Where it is.
    pub at: External,
    /// Whether it is an executable file. An object of the store is one that does not look like it.
    pub executable: bool,
    /// Whether it is a large folder that contains no links, and of which nothing is left out.
    pub whole: bool,
}

/// Whether a folder with so many files, and bytes in them, is large.
pub fn is_large(files: usize, bytes: u64) -> bool {
    files > FILES || bytes > BYTES
}

/// Places an input at `at`. Where `mounts` are given, a large one becomes one of them.
pub fn place(given: &Given, at: &Path, mounts: Option<&mut Mounts>) -> Result<()> {
    let from = &given.at.path;
    let meta = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
    match mounts {
        mounts if !meta.is_dir() => place_file(from, at, &meta, given.executable, mounts),
        Some(mounts) if given.whole => mounts.show(from, at).with_context(|| format!("cannot create {}", at.display())),
        mounts => place_folder(&Walk::of(&given.at)?, at, mounts),
    }
}

fn place_file(from: &Path, at: &Path, meta: &Metadata, executable: bool, mounts: Option<&mut Mounts>) -> Result<()> {
    match mounts {
        // A mount shows the mode that the file has.
        Some(mounts) if meta.len() > BYTES && executable == is_executable(meta) => {
            mounts.show(from, at).with_context(|| format!("cannot create {}", at.display()))
        }
        _ => copy(from, at, meta, executable).with_context(|| format!("cannot copy {}", from.display())),
    }
}

/// Places what is in a folder, one by one.
fn place_folder(walk: &Walk, at: &Path, mut mounts: Option<&mut Mounts>) -> Result<()> {
    let whole = if mounts.is_some() { large_folders(walk) } else { HashSet::new() };
    let is_below = |place: &&Place| above(&place.path).any(|folder| whole.contains(folder));
    let mut made = vec![];
    for folder in walk.folders.iter().filter(|folder| !is_below(folder)) {
        let at = at.join(&folder.path);
        match &mut mounts {
            Some(mounts) if whole.contains(folder.path.as_str()) => mounts.show(&folder.at, &at),
            _ => fs::create_dir(&at),
        }
        .with_context(|| format!("cannot create {}", at.display()))?;
        if !whole.contains(folder.path.as_str()) {
            made.push((at, &folder.meta));
        }
    }
    for file in walk.files.iter().filter(|file| !is_below(file)) {
        place_file(&file.at, &at.join(&file.path), &file.meta, file.executable, mounts.as_deref_mut())?;
    }
    // Filling a folder changed its time, which `tar` writes down.
    made.iter().rev().try_for_each(|(at, meta)| {
        let set = meta.modified().and_then(|time| File::open(at)?.set_modified(time));
        set.with_context(|| format!("cannot set the time of {}", at.display()))
    })
}

/// The folders that can be mounted as a whole: large, without links, and nothing in them is left out.
fn large_folders(walk: &Walk) -> HashSet<&str> {
    let mixed: HashSet<&str> =
        walk.mixed.iter().flat_map(|path| iter::once(path.as_str()).chain(above(path))).collect();
    let mut sizes: HashMap<&str, (usize, u64)> = HashMap::new();
    for file in &walk.files {
        for folder in above(&file.path) {
            let (files, bytes) = sizes.entry(folder).or_default();
            (*files, *bytes) = (*files + 1, *bytes + file.meta.len());
        }
    }
    sizes.retain(|folder, (files, bytes)| !mixed.contains(folder) && is_large(*files, *bytes));
    sizes.into_keys().collect()
}

/// The folders above a path, from the nearest to the root, whose path is empty.
fn above(path: &str) -> impl Iterator<Item = &str> {
    fn next(path: &str) -> Option<&str> {
        (!path.is_empty()).then(|| path.rfind('/').map_or("", |slash| &path[..slash]))
    }
    iter::successors(next(path), |path| next(path))
}

/// Copies a file with its modification time, which `make` compares. The copy is the stage's own, which may write to it, and
/// is shown to nobody to whom the file is not.
fn copy(from: &Path, at: &Path, meta: &Metadata, executable: bool) -> io::Result<()> {
    let mut source = super::regular::open(from)?;
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(at)?;
    io::copy(&mut source, &mut target)?;
    target.set_modified(meta.modified()?)?;
    let read = meta.permissions().mode() & 0o444 | 0o600;
    target.set_permissions(fs::Permissions::from_mode(if executable { read | read >> 2 & 0o111 } else { read }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_largest_folders_without_links_are_mounted_and_the_rest_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        for (file, bytes) in
            [("mixed/small/f", 1), ("mixed/large/deep/f", BYTES + 1), ("whole/a/f", BYTES), ("whole/b", 1)]
        {
            let file = from.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            File::create(file).unwrap().set_len(bytes).unwrap();
        }
        symlink("small/f", from.join("mixed/link")).unwrap();
        let given = Given { slot: "to", at: External::whole(&from), executable: false, whole: false };
        let mut mounts = Mounts::default();
        place(&given, &to, Some(&mut mounts)).unwrap();
        let covered = |path: &str| mounts.cover(&to.join(path));
        assert!(covered("whole") && covered("mixed/large") && !covered("mixed") && !covered("mixed/small"));
        assert_eq!(fs::read(to.join("mixed/link")).unwrap(), [0]);
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(&to.join("mixed")), time(&from.join("mixed")));
        assert_eq!(above("a/b/c").collect::<Vec<_>>(), ["a/b", "a", ""]);
        assert_eq!(above("").count(), 0);
    }
}
