//! What is below a folder: files, folders and links, as `stat` sees them.

use super::{digest::Digest, external::External};
use ignore::gitignore::Gitignore;
use rayon::prelude::*;
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A file or folder that cannot be digested, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An I/O error.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// A name that a listing cannot represent.
    #[error("{path} has a name that is not UTF-8 or holds a line break; rename it", path = path.display())]
    Name {
        /// The file or folder, its name made printable.
        path: PathBuf,
    },
    /// A link that leads back to a folder above it.
    #[error("{path} is a link that leads back to a folder above it; remove the link", path = path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
    /// A dangling link.
    #[error("{path} is a link to {target}, which does not exist; fix or remove the link", path = path.display(), target = target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// A link out of a folder that must be self-contained.
    #[error("{path} leads to {target}, outside of what the stage wrote; let the stage copy it (`cp -rL`)", path = path.display(), target = target.display())]
    Outside {
        /// The link, or a path behind it.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither a file nor a folder.
    #[error("{path} is neither a file nor a folder; remove it", path = path.display())]
    Special {
        /// The socket, pipe or device.
        path: PathBuf,
    },
}

impl Error {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ELOOP) {
            return Error::Loop { path: path.into() };
        }
        if error.kind() == io::ErrorKind::NotFound
            && let Ok(target) = fs::read_link(path)
        {
            return Error::Dangling { path: path.into(), target };
        }
        Error::Io { path: path.into(), error }
    }
}

/// Whether a file's owner may execute it. The other bits of its mode depend on the umask of the user who wrote it.
pub fn is_executable(meta: &Metadata) -> bool {
    meta.permissions().mode() & 0o100 != 0
}

/// What `stat` says of a file or folder, in a few bytes: path, length, modification time and, where it counts, executable bit of every
/// file and folder. A write normally changes it. An owner, a number of hard links and, on some network file systems, an inode may change
/// without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Digest);

impl Stamp {
    /// The stamp of a path, without reading any file.
    ///
    /// # Errors
    /// Where it does not exist, or cannot be read.
    pub fn of_path(at: &External) -> Result<Stamp, Error> {
        let meta = fs::metadata(&at.path).map_err(|e| Error::io(&at.path, e))?;
        if !meta.is_dir() {
            return Ok(Stamp::of_file(&meta, at.modes && is_executable(&meta)));
        }
        Ok(Walk::of(at)?.stamp())
    }

    /// The stamp of a file.
    pub fn of_file(meta: &Metadata, executable: bool) -> Stamp {
        Stamp::of([("", meta, executable)])
    }

    fn of<'f>(places: impl IntoIterator<Item = (&'f str, &'f Metadata, bool)>) -> Stamp {
        let mut hasher = blake3::Hasher::new();
        for (path, meta, executable) in places {
            hasher.update(path.as_bytes());
            for word in [meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64, executable.into()] {
                hasher.update(&word.to_le_bytes());
            }
        }
        Stamp(Digest(*hasher.finalize().as_bytes()))
    }
}

/// A file or folder below a folder.
#[derive(Debug)]
pub(super) struct Place {
    /// Its path in the folder, parts separated by `/`.
    pub path: String,
    /// Its own path.
    pub at: PathBuf,
    /// What `stat` says of it.
    pub meta: Metadata,
    /// Whether it is a file that its owner may execute, where that counts.
    pub executable: bool,
}

/// What is below a folder, sorted by path. Links are followed.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The files.
    pub files: Vec<Place>,
    /// The folders, the folder itself among them: its path is empty.
    pub folders: Vec<Place>,
    /// The paths of folders with nothing in them.
    pub empty: Vec<String>,
    /// The paths of folders that hold a link, or something that is left out.
    pub mixed: Vec<String>,
}

impl Walk {
    /// Of the folder at a path.
    pub fn of(at: &External) -> Result<Walk, Error> {
        let root = &at.path;
        let meta = fs::metadata(root).map_err(|e| Error::io(root, e))?;
        let walker = Walker { left_out: at.left_out(), modes: at.modes };
        let mut walk = walker.folder(root, "", &[(meta.dev(), meta.ino())])?;
        walk.folders.push(Place { path: String::new(), at: root.clone(), meta, executable: false });
        for places in [&mut walk.files, &mut walk.folders] {
            places.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        }
        walk.empty.sort_unstable();
        Ok(walk)
    }

    /// A folder's time counts too: it changes when something comes into it or leaves it, even if it leaves or returns again.
    pub fn stamp(&self) -> Stamp {
        let places = self.files.iter().chain(&self.folders);
        let Stamp(places) = Stamp::of(places.map(|place| (place.path.as_str(), &place.meta, place.executable)));
        Stamp(if self.is_plain() { places } else { Digest::of(&places.0) })
    }

    /// Whether there are no links, and nothing is left out.
    pub fn is_plain(&self) -> bool {
        self.mixed.is_empty()
    }

    fn add(&mut self, other: Walk) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.empty.extend(other.empty);
        self.mixed.extend(other.mixed);
    }
}

struct Walker {
    left_out: Gitignore,
    modes: bool,
}

impl Walker {
    /// What is below a folder. `prefix` is its path in the root, `above` are the folders on the way to it.
    fn folder(&self, folder: &Path, prefix: &str, above: &[(u64, u64)]) -> Result<Walk, Error> {
        let (mut walk, mut below, mut plain) = (Walk::default(), vec![], true);
        for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            let (at, name) = (entry.path(), entry.file_name());
            let path = if prefix.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{prefix}/{}", name.to_string_lossy())
            };
            let found = entry.metadata().map_err(|e| Error::io(&at, e))?;
            let link = found.is_symlink();
            let found = if link { fs::metadata(&at).map_err(|e| Error::io(&at, e)) } else { Ok(found) };
            // What is left out may be a link that leads nowhere, or have any name.
            if self.left_out.matched(&path, found.as_ref().is_ok_and(Metadata::is_dir)).is_ignore() {
                plain = false;
                continue;
            }
            if name.to_str().is_none_or(|name| name.contains('\n')) {
                return Err(Error::Name { path: at.to_string_lossy().replace('\n', "\\n").into() });
            }
            plain &= !link;
            let meta = found?;
            let executable = self.modes && meta.is_file() && is_executable(&meta);
            if meta.is_file() {
                walk.files.push(Place { path, at, meta, executable });
            } else if meta.is_dir() {
                let id = (meta.dev(), meta.ino());
                if link && above.contains(&id) {
                    return Err(Error::Loop { path: at });
                }
                below.push((path.clone(), at.clone(), id));
                walk.folders.push(Place { path, at, meta, executable });
            } else {
                return Err(Error::Special { path: at });
            }
        }
        if walk.files.is_empty() && below.is_empty() {
            walk.empty.push(prefix.into());
        }
        if !plain {
            walk.mixed.push(prefix.into());
        }
        let walked = |(path, at, id): (String, PathBuf, (u64, u64))| self.folder(&at, &path, &[above, &[id]].concat());
        let found = below.into_par_iter().map(walked).collect::<Result<Vec<_>, _>>()?;
        found.into_iter().for_each(|below| walk.add(below));
        Ok(walk)
    }
}

/// Whether there are links on the way from `above` to `path`, or inside `path`. A link that leads out of `above` is an
/// error.
pub fn has_links_inside(above: &Path, path: &Path) -> Result<bool, Error> {
    let whole = real(above)?;
    let inside = |path: &Path, target: &Path| match target.starts_with(&whole) {
        true => Ok(()),
        false => Err(Error::Outside { path: path.into(), target: target.into() }),
    };
    let (mut linked, mut at) = (false, above.to_path_buf());
    for part in path.strip_prefix(above).unwrap_or(path).components() {
        at.push(part);
        linked |= fs::symlink_metadata(&at).map_err(|e| Error::io(&at, e))?.is_symlink();
    }
    if linked {
        inside(path, &real(path)?)?;
    }
    if path.is_dir() {
        each_link(path, &mut |link, target| {
            linked = true;
            inside(link, target)
        })?;
    }
    Ok(linked)
}

fn real(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|e| Error::io(path, e))
}

/// Calls `visit` with every link below a folder, those behind links among them, and its real target.
fn each_link(root: &Path, visit: &mut dyn FnMut(&Path, &Path) -> Result<(), Error>) -> Result<(), Error> {
    let (mut open, mut seen) = (vec![root.to_path_buf()], HashSet::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let entry = entry.map_err(|e| Error::io(&folder, e))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(|e| Error::io(&folder, e))?);
            let mut is_new_folder = kind.is_dir();
            if kind.is_symlink() {
                let target = real(&path)?;
                visit(&path, &target)?;
                // Several links may lead to the same folder; visit it once.
                is_new_folder = target.is_dir() && seen.insert(target);
            }
            if is_new_folder {
                open.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::{
        os::unix::{ffi::OsStrExt, fs::symlink},
        time::SystemTime,
    };

    /// A folder with the files `a` and `b/c/one`.
    pub fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        fs::write(folder.path().join("b/c/one"), "1").unwrap();
        fs::write(folder.path().join("a"), "2").unwrap();
        folder
    }

    fn walk(root: &Path) -> Result<Walk, Error> {
        Walk::of(&External::whole(root))
    }

    #[test]
    fn a_stamp_changes_with_every_write_and_not_with_other_modes() {
        let folder = folder();
        let file = folder.path().join("b/c/one");
        let stamps = || [folder.path(), &file].map(|path| Stamp::of_path(&External::whole(path)).unwrap());
        let before = stamps();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        fs::hard_link(&file, elsewhere.path().join("link")).unwrap();
        assert_eq!(stamps(), before);
        let written = fs::File::options().write(true).open(&file).unwrap();
        written.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(stamps().iter().zip(&before).all(|(now, before)| now != before));
        let before = stamps();
        let without_modes = || Stamp::of_path(&External { modes: false, ..External::whole(folder.path()) }).unwrap();
        let plain = without_modes();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(stamps().iter().zip(&before).all(|(now, before)| now != before));
        assert_eq!(without_modes(), plain, "a mode that does not count may change while a stage reads the file");
        let before = stamps();
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert_ne!(stamps()[0], before[0]);
        assert!(Stamp::of_path(&External::whole(&folder.path().join("none"))).is_err());
    }

    #[test]
    fn unrepresentable_entries_are_errors_that_name_them() {
        let folder = folder();
        symlink("..", folder.path().join("b/up")).unwrap();
        assert!(matches!(walk(folder.path()), Err(Error::Loop { path }) if path.ends_with("b/up")));
        fs::remove_file(folder.path().join("b/up")).unwrap();
        let bad = folder.path().join(std::ffi::OsStr::from_bytes(b"x\xff"));
        fs::write(&bad, "").unwrap();
        assert!(matches!(walk(folder.path()), Err(Error::Name { .. })));
        fs::remove_file(bad).unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        assert!(matches!(walk(folder.path()), Err(Error::Dangling { path, .. }) if path.ends_with("dangling")));
    }
}
