//! The digest of a folder: BLAKE3 over its canonical listing, one line per file, sorted by path:
//! `<BLAKE3 of the bytes> <length> <path>`. The length of an executable file ends in `x`, and a folder without files has
//! the line `<BLAKE3 of nothing> 0 <path>/`, so that an empty folder is not an empty file. Other modes, times and owners do not count; links are followed.

use super::{digest, digest::Digest, external::External, stat};
use ignore::gitignore::Gitignore;
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// The files below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by path.
    pub files: Vec<Entry>,
    /// The folders with no file and no folder in them, sorted by path. That of the folder itself is empty.
    pub empty: Vec<String>,
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
    /// Whether its owner may execute it.
    pub executable: bool,
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
    /// A file: digest, and whether its owner may execute it.
    File(Digest, bool),
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

/// What was found at a path.
#[derive(Debug)]
pub struct Found {
    /// Its content.
    pub content: Arc<Content>,
    /// Its stamp from before it was read.
    pub stamp: Stamp,
    /// Whether it is, or contains, no link.
    pub plain: bool,
}

/// Digests a file or folder; unchanged files are not read again. A missing one gives None.
pub fn of_path(at: &External, cache: &stat::Cache) -> Result<Option<Found>, Error> {
    let path = &at.path;
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    if meta.is_dir() {
        let walk = Walk::of(at)?;
        let (stamp, plain) = (walk.stamp(), walk.plain);
        let content = Content::Folder(Listing::of_walk(walk, at.modes, cache)?);
        return Ok(Some(Found { content: Arc::new(content), stamp, plain }));
    }
    if !meta.is_file() {
        return Err(Error::Special { path: path.into() });
    }
    let content = Content::File(digest_of(path, &meta, cache)?, at.modes && is_executable(&meta));
    Ok(Some(Found { content: Arc::new(content), stamp: Stamp::of_file(&meta), plain: true }))
}

/// Whether a file's owner may execute it. The other bits of its mode depend on the umask of the user who wrote it.
pub fn is_executable(meta: &Metadata) -> bool {
    meta.permissions().mode() & 0o100 != 0
}

/// What `stat` says of a file or folder, in a few bytes: path, length, executable bit and modification time of every file and
/// folder. A write normally changes it. An owner, a number of hard links and, on some network file systems, an inode may change
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
            return Ok(Stamp::of_file(&meta));
        }
        Ok(Walk::of(at)?.stamp())
    }

    fn of_file(meta: &Metadata) -> Stamp {
        Stamp::of([("", meta)])
    }

    fn of<'f>(files: impl IntoIterator<Item = (&'f str, &'f Metadata)>) -> Stamp {
        let mut hasher = blake3::Hasher::new();
        for (path, meta) in files {
            hasher.update(path.as_bytes());
            let mode = is_executable(meta).into();
            for word in [meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64, mode] {
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
        Listing::of_walk(Walk::of(&External::whole(root))?, true, cache)
    }

    fn of_walk(walk: Walk, modes: bool, cache: &stat::Cache) -> Result<Listing, Error> {
        let entry = |(path, absolute, meta): Place| {
            let digest = digest_of(&absolute, &meta, cache)?;
            Ok(Entry { path, digest, size: meta.len(), executable: modes && is_executable(&meta) })
        };
        let files = walk.files.into_par_iter().map(entry).collect::<Result<Vec<_>, Error>>()?;
        Ok(Listing { files, empty: walk.empty })
    }

    /// The canonical text. An empty folder has no path in common with a file, so the lines have one order.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity((self.files.len() + self.empty.len()) * 110);
        let mut empty = self.empty.iter().peekable();
        for file in &self.files {
            while let Some(folder) = empty.next_if(|folder| **folder < file.path) {
                writeln!(text, "{NOTHING} 0 {folder}/").expect("a string takes all text");
            }
            let mode = if file.executable { "x" } else { "" };
            writeln!(text, "{} {}{mode} {}", file.digest, file.size, file.path).expect("a string takes all text");
        }
        empty.for_each(|folder| writeln!(text, "{NOTHING} 0 {folder}/").expect("a string takes all text"));
        text
    }

    /// Parses a canonical text. The error is the number of the first invalid line.
    pub fn parse(text: &str) -> Result<Listing, usize> {
        // Not `lines`, which takes a carriage return at the end of a name for a part of the line break.
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n').filter(|_| !text.is_empty());
        let mut listing = Listing::default();
        for (i, line) in lines.enumerate() {
            let entry = Entry::parse(line).ok_or(i + 1)?;
            match entry.path.strip_suffix('/') {
                None => listing.files.push(entry),
                Some(folder) => listing.empty.push(folder.into()),
            }
        }
        Ok(listing)
    }

    /// BLAKE3 of the canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// The same, with executable bits that do not count.
    pub fn without_modes(&self) -> Listing {
        let unmarked = |file: &Entry| Entry { executable: false, ..file.clone() };
        Listing { files: self.files.iter().map(unmarked).collect(), empty: self.empty.clone() }
    }

    /// The digest by which statements of version 0.1.0 name a folder: executable bits and empty folders did not count.
    pub fn unmarked(&self) -> Digest {
        Listing { empty: vec![], ..self.without_modes() }.digest()
    }

    /// The total size in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// The paths that differ between two listings, in order, and what happened to each.
    pub fn changes(&self, new: &Listing) -> Vec<(String, &'static str)> {
        let by_path = |listing: &Listing| -> BTreeMap<String, Option<Entry>> {
            let files = listing.files.iter().map(|file| (file.path.clone(), Some(file.clone())));
            files.chain(listing.empty.iter().map(|folder| (format!("{folder}/"), None))).collect()
        };
        let (old, new) = (by_path(self), by_path(new));
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let change = |path: &&String| match (old.get(*path), new.get(*path)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(Some(old)), Some(Some(new))) if old.digest == new.digest => Some("mode changed"),
            (Some(_), Some(_)) => Some("changed"),
            (Some(_), None) => Some("removed"),
            (None, _) => Some("added"),
        };
        paths.iter().filter_map(|path| Some((path.to_string(), change(path)?))).collect()
    }
}

impl Entry {
    /// Parses a line of a canonical text. The path of an empty folder ends in a slash.
    fn parse(line: &str) -> Option<Entry> {
        let mut parts = line.splitn(3, ' ');
        let digest: Digest = parts.next()?.parse().ok()?;
        let size = parts.next()?;
        let (size, executable) = size.strip_suffix('x').map_or((size, false), |size| (size, true));
        let (size, path) = (size.parse().ok()?, parts.next()?);
        let folder = path.strip_suffix('/');
        let is_root = path == "/";
        let sound = is_root || folder.unwrap_or(path).split('/').all(|part| !matches!(part, "" | "." | ".."));
        let empty = digest.to_string() == NOTHING && size == 0 && !executable;
        (sound && (folder.is_none() || empty)).then(|| Entry { path: path.into(), digest, size, executable })
    }
}

/// The digest of no bytes, in the line of an empty folder.
const NOTHING: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// A file: its path in the folder, its own path, and what `stat` says of it.
type Place = (String, PathBuf, Metadata);

/// What is below a folder, sorted by path. Links are followed.
#[derive(Default)]
struct Walk {
    files: Vec<Place>,
    folders: Vec<Place>,
    empty: Vec<String>,
    /// Whether there are no links, and nothing is left out.
    plain: bool,
}

impl Walk {
    fn of(at: &External) -> Result<Walk, Error> {
        let root = &at.path;
        let meta = fs::metadata(root).map_err(|e| Error::io(root, e))?;
        let mut walk = walk_folder(root, "", &[(meta.dev(), meta.ino())], &at.left_out())?;
        walk.folders.push((String::new(), root.clone(), meta));
        for places in [&mut walk.files, &mut walk.folders] {
            places.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        walk.empty.sort_unstable();
        Ok(walk)
    }

    /// A folder's time counts too: it changes when something comes into it or leaves it, even if it leaves or returns again.
    fn stamp(&self) -> Stamp {
        let places = self.files.iter().chain(&self.folders);
        let Stamp(places) = Stamp::of(places.map(|(path, _, meta)| (path.as_str(), meta)));
        Stamp(if self.plain { places } else { Digest::of(&places.0) })
    }

    fn add(&mut self, other: Walk) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.empty.extend(other.empty);
        self.plain &= other.plain;
    }
}

fn walk_folder(folder: &Path, prefix: &str, above: &[(u64, u64)], left_out: &Gitignore) -> Result<Walk, Error> {
    let mut walk = Walk { plain: true, ..Walk::default() };
    let mut folders = vec![];
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        let name = entry.file_name();
        let sound = name.to_str().is_some_and(|name| !name.contains('\n'));
        let name = name.to_string_lossy();
        let relative = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
        let mut meta = entry.metadata().map_err(|e| Error::io(&path, e))?;
        let link = meta.is_symlink();
        if link {
            // What is left out may be a link that leads nowhere.
            meta = match fs::metadata(&path) {
                Err(_) if left_out.matched(&relative, false).is_ignore() => {
                    walk.plain = false;
                    continue;
                }
                found => found.map_err(|e| Error::io(&path, e))?,
            };
        }
        if left_out.matched(&relative, meta.is_dir()).is_ignore() {
            walk.plain = false;
            continue;
        }
        if !sound {
            return Err(Error::Name { path: path.to_string_lossy().replace('\n', "\\n").into() });
        }
        walk.plain &= !link;
        if meta.is_file() {
            walk.files.push((relative, path, meta));
        } else if meta.is_dir() {
            let id = (meta.dev(), meta.ino());
            if link && above.contains(&id) {
                return Err(Error::Loop { path });
            }
            walk.folders.push((relative.clone(), path.clone(), meta));
            folders.push((relative, path, id));
        } else {
            return Err(Error::Special { path });
        }
    }
    if walk.files.is_empty() && folders.is_empty() {
        walk.empty.push(prefix.into());
    }
    let below = |(relative, path, id): (String, PathBuf, (u64, u64))| {
        let above = [above, &[id]].concat();
        walk_folder(&path, &relative, &above, left_out)
    };
    let found = folders.into_par_iter().map(below).collect::<Result<Vec<_>, _>>()?;
    found.into_iter().for_each(|below| walk.add(below));
    Ok(walk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
        fs::create_dir_all(folder.path().join("empty/below")).unwrap();
        fs::write(folder.path().join("b/run"), "3").unwrap();
        fs::set_permissions(folder.path().join("b/run"), fs::Permissions::from_mode(0o700)).unwrap();
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
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(stamps().iter().zip(&before).all(|(now, before)| now != before));
        let before = stamps();
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert_ne!(stamps()[0], before[0]);
        assert!(Stamp::of_path(&External::whole(&folder.path().join("none"))).is_err());
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
    fn executable_bits_and_empty_folders_count() {
        let folder = folder();
        let plain = listing(folder.path()).unwrap();
        assert_eq!(plain.digest(), plain.unmarked());
        let file = folder.path().join("b/c/one");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let runs = listing(folder.path()).unwrap();
        fs::create_dir(folder.path().join("b/c/none")).unwrap();
        let with_empty = listing(folder.path()).unwrap();
        let digests = [&plain, &runs, &with_empty].map(Listing::digest);
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
        assert_eq!([&runs, &with_empty].map(Listing::unmarked), [plain.digest(); 2]);
        assert_eq!(with_empty.empty, ["b/c/none"]);
        // An empty folder is not an empty file.
        let nothing = tempfile::tempdir().unwrap();
        let nothing = listing(nothing.path()).unwrap();
        assert!(nothing.empty == [""] && nothing.digest() != Digest::of(b"") && nothing.unmarked() == Digest::of(b""));
        assert_eq!(Listing::parse(&nothing.text()).unwrap(), nothing);
        fs::remove_file(file).unwrap();
        let alone = listing(folder.path()).unwrap();
        assert_eq!(Listing::parse(&alone.text()).unwrap(), alone);
    }

    #[test]
    fn what_is_left_out_does_not_count() {
        let folder = folder();
        let before = listing(folder.path()).unwrap();
        for file in ["b/__pycache__/m.pyc", "b/c/__pycache__/n.pyc", "b/.DS_Store", "top", "b/c/top"] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        symlink("nowhere", folder.path().join("b/.#lock")).unwrap();
        let except = serde_json::json!(["**/__pycache__", ".DS_Store", "/top", ".#*"]);
        let at = External { except: serde_json::from_value(except).unwrap(), ..External::whole(folder.path()) };
        let found = of_path(&at, &stat::Cache::none()).unwrap().unwrap();
        let Content::Folder(found) = &*found.content else { panic!("it is a folder") };
        assert!(before.changes(found).iter().map(|(path, _)| path.as_str()).eq(["b/c/top"]));
    }

    proptest! {
        #[test]
        fn a_listing_is_what_its_text_says(
            files in prop::collection::btree_map("[a-c]{1,2}(/[a-c .\r]{1,2}x){0,2}", (any::<[u8; 32]>(), any::<u64>(), any::<bool>()), 0..6),
            empty in prop::collection::btree_set("[d-f]{1,2}(/[a-c .]{1,2}x){0,2}", 0..4),
        ) {
            let entry = |(path, (digest, size, executable))| Entry { path, digest: Digest(digest), size, executable };
            let listing = Listing { files: files.into_iter().map(entry).collect(), empty: empty.into_iter().collect() };
            prop_assert_eq!(Listing::parse(&listing.text()).unwrap(), listing);
        }
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
        let entry = |path: &str, text: &str| Entry {
            path: path.into(),
            digest: Digest::of(text.as_bytes()),
            size: 1,
            executable: false,
        };
        let old = [entry("a", "1"), entry("b", "1"), entry("c", "1"), entry("e", "1")];
        let old = Listing { files: old.into(), empty: vec!["f".into(), "g".into()] };
        let runs = Entry { executable: true, ..entry("e", "1") };
        let new = [entry("b", "2"), entry("c", "1"), entry("d", "1"), runs];
        let new = Listing { files: new.into(), empty: vec!["g".into(), "h".into()] };
        let expected = [
            ("a", "removed"),
            ("b", "changed"),
            ("d", "added"),
            ("e", "mode changed"),
            ("f/", "removed"),
            ("h/", "added"),
        ];
        assert_eq!(old.changes(&new), expected.map(|(p, w)| (p.to_string(), w)));
    }

    #[test]
    fn a_damaged_listing_is_refused_with_its_line() {
        let good = format!("{} 1 a\n", Digest::of(b""));
        assert_eq!(Listing::parse(&format!("{good}{} 1 ../b\n", Digest::of(b""))), Err(2));
        assert_eq!(Listing::parse("x 1 a\n"), Err(1));
        for line in ["1 a/", "0x a/", "0 //", "0 a//", "0 /a", "x a"] {
            let digest = if line.starts_with('1') { Digest::of(b"1") } else { Digest::of(b"") };
            assert_eq!(Listing::parse(&format!("{good}{digest} {line}\n")), Err(2), "{line}");
        }
    }
}
