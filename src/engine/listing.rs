//! The digest of a folder: BLAKE3 over its canonical listing, one line per file, sorted by path:
//! `<BLAKE3 of the bytes> <length> <path>`. The length of an executable file ends in `x`. An empty folder has the line
//! `<BLAKE3 of nothing> 0 <path>/`, so that it is not an empty file. Other modes, times and owners do not count; links are
//! followed.

use super::{
    digest,
    digest::Digest,
    external::External,
    stat,
    walk::{Error, Place, Stamp, Walk, is_executable},
};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    path::Path,
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
    /// Whether it contains no link, and nothing is left out.
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
        let (stamp, plain) = (walk.stamp(), walk.is_plain());
        let content = Content::Folder(Listing::of_walk(walk, cache)?);
        return Ok(Some(Found { content: Arc::new(content), stamp, plain }));
    }
    if !meta.is_file() {
        return Err(Error::Special { path: path.into() });
    }
    let executable = at.modes && is_executable(&meta);
    let content = Content::File(digest_of(path, &meta, cache)?, executable);
    Ok(Some(Found { content: Arc::new(content), stamp: Stamp::of_file(&meta, executable), plain: true }))
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

impl Listing {
    /// The listing of a folder.
    pub fn of_folder(root: &Path, cache: &stat::Cache) -> Result<Listing, Error> {
        Listing::of_walk(Walk::of(&External::whole(root))?, cache)
    }

    fn of_walk(walk: Walk, cache: &stat::Cache) -> Result<Listing, Error> {
        let entry = |Place { path, at, meta, executable }: Place| {
            let digest = digest_of(&at, &meta, cache)?;
            Ok(Entry { path, digest, size: meta.len(), executable })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::tests::folder;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn listing(root: &Path) -> Result<Listing, Error> {
        Listing::of_folder(root, &stat::Cache::load(Path::new("/nonexistent")))
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
