//! The digest of a folder: BLAKE3 over its canonical listing, one line per file, sorted by path:
//! `<BLAKE3 of the bytes> <length> <path>`. Modes, times and empty folders do not count; links are followed.

use super::{digest, digest::Digest, stat};
use rayon::prelude::*;
use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by path.
    pub files: Vec<Entry>,
}

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Relative, parts separated by `/`.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

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
    fn io(path: &Path, error: io::Error) -> Self {
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

/// The content of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file: digest and length.
    File(Digest, u64),
    /// A folder.
    Folder(Listing),
}

impl Content {
    /// The content digest.
    pub fn digest(&self) -> Digest {
        match self {
            Content::File(digest, _) => *digest,
            Content::Folder(listing) => listing.digest(),
        }
    }
}

/// Digests the file or folder at `path`; unchanged files are not read again. A missing one gives None.
pub fn of_path(path: &Path, cache: &stat::Cache) -> Result<Option<Content>, Error> {
    Ok(stamped(path, cache)?.map(|(_, content)| content))
}

/// As [`of_path`], with the stamp from before it was read.
pub fn stamped(path: &Path, cache: &stat::Cache) -> Result<Option<(Stamp, Content)>, Error> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    if meta.is_dir() {
        let found = walk(path)?;
        let stamp = Stamp::of_files(&found);
        return Ok(Some((stamp, Content::Folder(Listing::of_files(found, cache)?))));
    }
    if !meta.is_file() {
        return Err(Error::Special { path: path.into() });
    }
    let digest = digest_of(path, &meta, cache)?;
    Ok(Some((Stamp::of_file(&meta), Content::File(digest, meta.len()))))
}

/// What `stat` says of a file or folder, in a few bytes: path, length and modification time of every file. A write normally
/// changes it. A mode, an owner, a number of hard links and, on some network file systems, an inode may change without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Digest);

impl Stamp {
    /// The stamp of a path, without reading any file.
    ///
    /// # Errors
    /// Where it does not exist, or cannot be read.
    pub fn of_path(path: &Path) -> Result<Stamp, Error> {
        let meta = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !meta.is_dir() {
            return Ok(Stamp::of_file(&meta));
        }
        Ok(Stamp::of_files(&walk(path)?))
    }

    fn of_file(meta: &Metadata) -> Stamp {
        Stamp::of([("", meta)])
    }

    /// Of files sorted by path.
    fn of_files(files: &[Found]) -> Stamp {
        Stamp::of(files.iter().map(|(path, _, meta)| (path.as_str(), meta)))
    }

    fn of<'f>(files: impl IntoIterator<Item = (&'f str, &'f Metadata)>) -> Stamp {
        let mut hasher = blake3::Hasher::new();
        for (path, meta) in files {
            hasher.update(path.as_bytes());
            for word in [meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64] {
                hasher.update(&word.to_le_bytes());
            }
        }
        Stamp(Digest(*hasher.finalize().as_bytes()))
    }
}

/// Digests a file. An unchanged file is not read again.
pub fn digest_of(path: &Path, meta: &Metadata, cache: &stat::Cache) -> Result<Digest, Error> {
    if let Some(known) = cache.lookup(path, meta) {
        return Ok(known);
    }
    let read_at = SystemTime::now();
    let digest = digest::of_file(path).map_err(|e| Error::io(path, e))?;
    cache.insert(path, meta, digest, read_at);
    Ok(digest)
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

/// Where the links below a folder lead that lead out of it, real paths. Their targets belong to the folder's listing.
///
/// # Errors
/// Where a folder cannot be read, or a link leads nowhere.
pub fn targets_outside(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let (whole, mut targets) = (real(root)?, vec![]);
    each_link(root, &mut |_, target| {
        if !target.starts_with(&whole) {
            targets.push(target.to_path_buf());
        }
        Ok(())
    })?;
    Ok(targets)
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

impl Listing {
    /// The listing of a folder.
    pub fn of_folder(root: &Path, cache: &stat::Cache) -> Result<Listing, Error> {
        Listing::of_files(walk(root)?, cache)
    }

    /// Of files sorted by path.
    fn of_files(found: Vec<Found>, cache: &stat::Cache) -> Result<Listing, Error> {
        let entry = |(path, absolute, meta): (String, PathBuf, Metadata)| {
            let digest = digest_of(&absolute, &meta, cache)?;
            Ok(Entry { path, digest, size: meta.len() })
        };
        let files = found.into_par_iter().map(entry).collect::<Result<Vec<_>, Error>>()?;
        Ok(Listing { files })
    }

    /// The canonical text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.files.len() * 110);
        for file in &self.files {
            use std::fmt::Write;
            writeln!(text, "{} {} {}", file.digest, file.size, file.path).expect("a string takes all text");
        }
        text
    }

    /// Parses a canonical text. The error is the number of the first invalid line.
    pub fn parse(text: &str) -> Result<Listing, usize> {
        let entry = |(i, line): (usize, &str)| {
            let mut parts = line.splitn(3, ' ');
            let digest = parts.next().and_then(|d| d.parse().ok());
            let size = parts.next().and_then(|s| s.parse().ok());
            let path =
                parts.next().filter(|p| !p.is_empty() && p.split('/').all(|part| !matches!(part, "" | "." | "..")));
            match (digest, size, path) {
                (Some(digest), Some(size), Some(path)) => Ok(Entry { path: path.into(), digest, size }),
                _ => Err(i + 1),
            }
        };
        // Not `lines`, which takes a carriage return at the end of a name for a part of the line break.
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n').filter(|_| !text.is_empty());
        lines.enumerate().map(entry).collect::<Result<_, _>>().map(|files| Listing { files })
    }

    /// BLAKE3 of the canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// The total size in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// The paths that differ between two listings, in order, each as added, removed or changed.
    pub fn changes(&self, new: &Listing) -> Vec<(String, &'static str)> {
        let mut changes = vec![];
        let (mut old, mut new) = (self.files.iter().peekable(), new.files.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some(o), n) if n.is_none_or(|n| o.path < n.path) => {
                    changes.push((o.path.clone(), "removed"));
                    old.next();
                }
                (o, Some(n)) if o.is_none_or(|o| n.path < o.path) => {
                    changes.push((n.path.clone(), "added"));
                    new.next();
                }
                (Some(o), Some(n)) => {
                    if o.digest != n.digest {
                        changes.push((n.path.clone(), "changed"));
                    }
                    old.next();
                    new.next();
                }
                _ => unreachable!("one of the arms above takes every other pair"),
            }
        }
    }
}

type Found = (String, PathBuf, Metadata);

/// Every file below `root`, following links, sorted by path.
fn walk(root: &Path) -> Result<Vec<Found>, Error> {
    let meta = fs::metadata(root).map_err(|e| Error::io(root, e))?;
    let mut files = walk_folder(root, "", &[(meta.dev(), meta.ino())])?;
    files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

fn walk_folder(folder: &Path, prefix: &str, above: &[(u64, u64)]) -> Result<Vec<Found>, Error> {
    let mut files = vec![];
    let mut folders = vec![];
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| !n.contains('\n')) else {
            return Err(Error::Name { path: path.to_string_lossy().replace('\n', "\\n").into() });
        };
        let relative = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
        let mut meta = entry.metadata().map_err(|e| Error::io(&path, e))?;
        let link = meta.is_symlink();
        if link {
            meta = fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        }
        if meta.is_file() {
            files.push((relative, path, meta));
        } else if meta.is_dir() {
            let id = (meta.dev(), meta.ino());
            if link && above.contains(&id) {
                return Err(Error::Loop { path });
            }
            folders.push((relative, path, id));
        } else {
            return Err(Error::Special { path });
        }
    }
    let below = |(relative, path, id): (String, PathBuf, (u64, u64))| {
        let above = [above, &[id]].concat();
        walk_folder(&path, &relative, &above)
    };
    let found = folders.into_par_iter().map(below).collect::<Result<Vec<_>, _>>()?;
    files.extend(found.into_iter().flatten());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt, fs::symlink};

    fn listing(root: &Path) -> Result<Listing, Error> {
        Listing::of_folder(root, &stat::Cache::load(Path::new("/nonexistent")))
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        fs::write(folder.path().join("b/c/one"), "1").unwrap();
        fs::write(folder.path().join("a"), "2").unwrap();
        folder
    }

    #[test]
    fn the_text_is_canonical() {
        let folder = folder();
        symlink("a", folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        let listing = listing(folder.path()).unwrap();
        insta::assert_snapshot!(listing.text());
        assert_eq!(Listing::parse(&listing.text()).unwrap(), listing);
    }

    #[test]
    fn names_may_end_in_a_carriage_return() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Icon", "Icon\r", "\r"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let listing = listing(folder.path()).unwrap();
        assert_eq!(listing.files.len(), 3);
        assert_eq!(Listing::parse(&listing.text()).unwrap(), listing);
        assert_eq!(Listing::parse("").unwrap(), Listing::default());
    }

    #[test]
    fn a_stamp_changes_with_every_write_and_not_with_a_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder();
        let file = folder.path().join("b/c/one");
        let stamps = || [folder.path(), &file].map(|path| Stamp::of_path(path).unwrap());
        let before = stamps();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        fs::hard_link(&file, elsewhere.path().join("link")).unwrap();
        assert_eq!(stamps(), before);
        let written = fs::File::options().write(true).open(&file).unwrap();
        written.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(stamps().iter().zip(&before).all(|(now, before)| now != before));
        assert!(Stamp::of_path(&folder.path().join("none")).is_err());
    }

    #[test]
    fn bytes_and_names_count_and_times_do_not() {
        let folder = folder();
        let before = listing(folder.path()).unwrap().digest();
        let file = folder.path().join("a");
        fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(listing(folder.path()).unwrap().digest(), before);
        fs::write(&file, "3").unwrap();
        let changed = listing(folder.path()).unwrap().digest();
        assert_ne!(changed, before);
        fs::rename(&file, folder.path().join("d")).unwrap();
        assert_ne!(listing(folder.path()).unwrap().digest(), changed);
    }

    #[test]
    fn unrepresentable_entries_are_errors_that_name_them() {
        let folder = folder();
        symlink("..", folder.path().join("b/up")).unwrap();
        assert!(matches!(listing(folder.path()), Err(Error::Loop { path }) if path.ends_with("b/up")));
        fs::remove_file(folder.path().join("b/up")).unwrap();
        let bad = folder.path().join(std::ffi::OsStr::from_bytes(b"x\xff"));
        fs::write(&bad, "").unwrap();
        assert!(matches!(listing(folder.path()), Err(Error::Name { .. })));
        fs::remove_file(bad).unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        assert!(matches!(listing(folder.path()), Err(Error::Dangling { path, .. }) if path.ends_with("dangling")));
    }

    #[test]
    fn changes_are_listed_file_by_file() {
        let entry = |path: &str, text: &str| Entry { path: path.into(), digest: Digest::of(text.as_bytes()), size: 1 };
        let old = Listing { files: vec![entry("a", "1"), entry("b", "1"), entry("c", "1")] };
        let new = Listing { files: vec![entry("b", "2"), entry("c", "1"), entry("d", "1")] };
        let expected = [("a", "removed"), ("b", "changed"), ("d", "added")];
        assert_eq!(old.changes(&new), expected.map(|(p, w)| (p.to_string(), w)));
    }

    #[test]
    fn a_damaged_listing_is_refused_with_its_line() {
        let good = format!("{} 1 a\n", Digest::of(b""));
        assert_eq!(Listing::parse(&format!("{good}{} 1 ../b\n", Digest::of(b""))), Err(2));
        assert_eq!(Listing::parse("x 1 a\n"), Err(1));
    }
}
