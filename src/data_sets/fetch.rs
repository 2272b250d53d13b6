//! Fetches a data set: finds or downloads its archives, verifies and unpacks them.

use super::{
    Archive, DataSet, Unpack,
    digest::{self, Digests},
    download::{Client, Unavailable, Wanted, part_of, suffixed},
    place::{Place, Stamp},
    unpack,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    convert::Infallible,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// A data set to fetch, and how.
pub struct Fetch<'a> {
    pub set: &'a DataSet,
    pub place: &'a Place,
    pub origin: &'a Origin,
    pub client: &'a Client,
}

/// Where archives come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The URLs in the catalogue.
    Published,
    /// A URL with files of the same names.
    Mirror(String),
    /// A folder with files of the same names.
    Folder(PathBuf),
}

/// A step of fetching an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Download,
    Compare,
    Unpack,
}

/// Observes the progress of a fetch.
pub trait Watch {
    /// A step of an archive begins.
    fn begin(&mut self, step: Step, file: &str);
    /// `done` of `total` bytes are processed.
    fn at(&mut self, done: u64, total: Option<u64>);
}

/// Whether there was anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Fetched,
    AlreadyThere,
}

/// Archives that have to be downloaded by hand.
#[derive(Debug)]
pub struct Missing {
    /// What was tried, and why it failed.
    why: String,
    /// What to do, one step per line.
    steps: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}\nby hand:", self.why)?;
        self.steps.iter().zip(1..).try_for_each(|(step, number)| write!(f, "\n  {number}. {step}"))
    }
}

impl std::error::Error for Missing {}

impl FromStr for Origin {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.starts_with("http://") || text.starts_with("https://") {
            true => Origin::Mirror(text.trim_end_matches('/').into()),
            false => Origin::Folder(text.into()),
        })
    }
}

impl Fetch<'_> {
    /// Fetches the data set. The error is [`Missing`] if archives cannot be obtained.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Outcome> {
        let _lock = self.place.lock()?;
        self.place.recover()?;
        if self.place.holds(self.set) {
            return Ok(Outcome::AlreadyThere);
        }
        self.place.vacant(Path::new(&self.set.root))?;
        let stamps = self.obtain_all(watch)?;
        let staging = self.place.stage()?;
        for archive in &self.set.archives {
            self.unpack(archive, &staging, watch)?;
        }
        let root = staging.join(&self.set.root);
        ensure!(root.is_dir(), "the archives of '{}' do not contain the folder {}", self.set.name, self.set.root);
        self.place.finish(&stamps)?;
        Ok(Outcome::Fetched)
    }

    /// Puts all archives in place. All are tried before the missing ones are reported.
    fn obtain_all(&self, watch: &mut dyn Watch) -> Result<Vec<Stamp>> {
        let (mut stamps, mut missing, mut offline) = (vec![], vec![], false);
        for archive in &self.set.archives {
            match self.obtain(archive, offline, watch) {
                Ok(digests) => stamps.push(Stamp { file: archive.file.clone(), digests }),
                Err(error) => {
                    let why = error.downcast::<Unavailable>()?;
                    offline |= why.offline;
                    missing.push((archive, why));
                }
            }
        }
        match missing.is_empty() {
            true => Ok(stamps),
            false => Err(self.missing(&missing).into()),
        }
    }

    /// Puts the right archive in place. Nothing is downloaded if the network is known to be down.
    fn obtain(&self, archive: &Archive, offline: bool, watch: &mut dyn Watch) -> Result<Digests> {
        let path = self.place.archive(archive);
        if !path.exists() && !self.bring(archive, &path)? {
            if offline {
                return Err(Unavailable { tried: vec![], offline }.into());
            }
            self.download(archive, &path, watch)?;
        }
        compare(archive, &path, watch)
    }

    /// Takes an archive from a folder, if the origin is one and contains it.
    fn bring(&self, archive: &Archive, to: &Path) -> Result<bool> {
        let Origin::Folder(folder) = self.origin else { return Ok(false) };
        ensure!(folder.is_dir(), "--from: {} is neither a folder nor a URL that starts with http", folder.display());
        let from = folder.join(&archive.file);
        if !from.is_file() {
            return Ok(false);
        }
        // The target of a symbolic link, not the link.
        let from = from.canonicalize().with_context(|| format!("cannot read {}", from.display()))?;
        // A hard link takes no space; across file systems a copy is needed.
        let part = part_of(to);
        let _ = fs::remove_file(&part);
        let copied = fs::hard_link(&from, &part).or_else(|_| fs::copy(&from, &part).map(|_| ()));
        let placed = copied.and_then(|()| fs::rename(&part, to));
        placed.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(true)
    }

    fn download(&self, archive: &Archive, to: &Path, watch: &mut dyn Watch) -> Result<()> {
        let urls = match self.origin {
            Origin::Published => archive.urls.clone(),
            Origin::Mirror(address) => vec![format!("{address}/{}", archive.file)],
            Origin::Folder(folder) => {
                let tried = vec![(folder.display().to_string(), format!("it does not contain {}", archive.file))];
                return Err(Unavailable { tried, offline: false }.into());
            }
        };
        if !urls.is_empty() {
            watch.begin(Step::Download, &archive.file);
        }
        let checked = archive.md5.is_some() || archive.sha256.is_some();
        let wanted = Wanted { urls: &urls, bytes: archive.bytes, checked };
        self.client.download(&wanted, to, &mut |done, total| watch.at(done, total.or(archive.bytes)))?;
        fs::rename(part_of(to), to).with_context(|| format!("cannot write {}", to.display()))
    }

    fn unpack(&self, archive: &Archive, staging: &Path, watch: &mut dyn Watch) -> Result<()> {
        let from = self.place.archive(archive);
        if archive.unpack == Unpack::No {
            let to = staging.join(&archive.into).join(&archive.file);
            return lay(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()));
        }
        watch.begin(Step::Unpack, &archive.file);
        unpack::unpack(archive, &from, staging, &mut |bytes| watch.at(bytes, None))
    }

    fn missing(&self, missing: &[(&Archive, Unavailable)]) -> Missing {
        let tried: Vec<String> =
            missing.iter().filter(|(_, why)| !why.tried.is_empty()).map(|(_, why)| why.to_string()).collect();
        let why = match tried.is_empty() {
            true => format!("'{}' cannot be downloaded by a program", self.set.name),
            false => tried.join("\n"),
        };
        let files = missing.iter().map(|(archive, _)| self.step(archive));
        let again = "run the same command again: it finds, verifies and unpacks the archives".to_owned();
        Missing { why, steps: self.set.manual.iter().cloned().chain(files).chain([again]).collect() }
    }

    /// How to get an archive.
    fn step(&self, archive: &Archive) -> String {
        let length = archive.bytes.map(|bytes| format!("{bytes} bytes"));
        let sha256 = archive.sha256.as_ref().map(|digits| format!("SHA-256 {digits}"));
        let md5 = archive.md5.as_ref().map(|digits| format!("MD5 {digits}"));
        let known: Vec<String> = length.into_iter().chain(md5.or(sha256)).collect();
        let known = if known.is_empty() { "no length or checksum is known".into() } else { known.join(", ") };
        let what = match archive.urls.first() {
            Some(url) => format!("download {url}"),
            None => format!("put {}", archive.file),
        };
        format!("{what} ({known}) to {}", self.place.archive(archive).display())
    }
}

/// Puts a file that needs no unpacking among the unpacked files.
fn lay(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
}

/// Reads an archive and compares it with the catalogue. A mismatching one is kept under another name.
fn compare(archive: &Archive, path: &Path, watch: &mut dyn Watch) -> Result<Digests> {
    watch.begin(Step::Compare, &archive.file);
    let length = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    let digests = digest::of(path, &mut |bytes| watch.at(bytes, Some(length)))?;
    let Some(mismatch) = digests.mismatch(archive) else { return Ok(digests) };
    let wrong = suffixed(path, ".wrong");
    fs::rename(path, &wrong).with_context(|| format!("cannot move {} away", path.display()))?;
    bail!(
        "{} is not the expected file: {mismatch}. It is kept as {}. Run the command again to download it again; if the \
         result is the same, use another source with --from",
        path.display(),
        wrong.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalogue, digest::tests::archive};

    struct Noted(Vec<(Step, String)>);

    impl Watch for Noted {
        fn begin(&mut self, step: Step, file: &str) {
            self.0.push((step, file.into()));
        }

        fn at(&mut self, _: u64, _: Option<u64>) {}
    }

    /// A data set of a tar archive and a plain file, and a folder that contains both.
    fn set_and_mirror() -> (DataSet, tempfile::TempDir) {
        let mirror = tempfile::tempdir().unwrap();
        let mut tar = ::tar::Builder::new(vec![]);
        let mut header = ::tar::Header::new_gnu();
        header.set_size(1);
        tar.append_data(&mut header, "images/x", &b"1"[..]).unwrap();
        fs::write(mirror.path().join("a.tar"), tar.into_inner().unwrap()).unwrap();
        fs::write(mirror.path().join("b.mat"), "labels").unwrap();
        let digests = |file: &str| digest::of(&mirror.path().join(file), &mut |_| ()).unwrap();
        let known = |file: &str, unpack| Archive {
            bytes: Some(digests(file).bytes),
            md5: Some(digests(file).md5),
            into: "dtd".into(),
            unpack,
            urls: vec![format!("http://127.0.0.1:1/{file}")],
            ..archive(file)
        };
        let mut set = Catalogue::embedded().get("dtd").unwrap().clone();
        set.archives = vec![known("a.tar", Unpack::Tar), known("b.mat", Unpack::No)];
        (set, mirror)
    }

    fn fetch(set: &DataSet, place: &Place, origin: &Origin) -> (Result<Outcome>, Vec<(Step, String)>) {
        let mut noted = Noted(vec![]);
        let done = Fetch { set, place, origin, client: &Client::default() }.run(&mut noted);
        (done, noted.0)
    }

    #[test]
    fn a_set_comes_from_a_folder_once() {
        let (set, mirror) = set_and_mirror();
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path().join("dtd"));
        let origin = Origin::Folder(mirror.path().into());
        let (done, steps) = fetch(&set, &place, &origin);
        assert_eq!(done.unwrap(), Outcome::Fetched);
        let expected = [(Step::Compare, "a.tar"), (Step::Compare, "b.mat"), (Step::Unpack, "a.tar")];
        assert_eq!(steps, expected.map(|(step, file)| (step, file.to_owned())));
        assert_eq!(fs::read_to_string(place.folder().join("dtd/images/x")).unwrap(), "1");
        assert_eq!(fs::read_to_string(place.folder().join("dtd/b.mat")).unwrap(), "labels");
        // The second time nothing is read, even when the archives are gone.
        place.remove_archives(&set).unwrap();
        let (done, steps) = fetch(&set, &place, &origin);
        assert_eq!((done.unwrap(), steps), (Outcome::AlreadyThere, vec![]));
        assert!(mirror.path().join("a.tar").exists());
    }

    #[test]
    fn a_wrong_archive_is_kept_aside() {
        let (mut set, mirror) = set_and_mirror();
        set.archives[1].md5 = Some("0".repeat(32));
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path().join("dtd"));
        let (done, _) = fetch(&set, &place, &Origin::Folder(mirror.path().into()));
        let error = format!("{:#}", done.unwrap_err());
        let expected = format!("its MD5 is {}, {} was expected", md5_of("labels"), "0".repeat(32));
        assert!(error.contains("archives/b.mat is not the expected file") && error.contains(&expected), "{error}");
        assert!(error.contains("b.mat.wrong") && error.contains("--from"), "{error}");
        assert_eq!(fs::read_to_string(place.folder().join("archives/b.mat.wrong")).unwrap(), "labels");
        assert!(!place.folder().join("dtd").exists() && !place.folder().join("archives/b.mat").exists());
    }

    fn md5_of(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        digest::of(file.path(), &mut |_| ()).unwrap().md5
    }

    #[test]
    fn without_network_it_says_what_to_do() {
        let (mut set, mirror) = set_and_mirror();
        set.manual = vec!["ask".into()];
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path().join("dtd"));
        let (done, _) = fetch(&set, &place, &Origin::Published);
        let missing = done.unwrap_err().downcast::<Missing>().unwrap();
        let error = missing.to_string();
        assert!(error.starts_with("no network: http://127.0.0.1:1/a.tar: "), "{error}");
        let tar = &set.archives[0];
        let step = format!(
            "2. download http://127.0.0.1:1/a.tar ({} bytes, MD5 {}) to {}",
            tar.bytes.unwrap(),
            tar.md5.as_ref().unwrap(),
            place.archive(tar).display()
        );
        assert!(
            error.contains("1. ask") && error.contains(&step) && error.contains("4. run the same command again"),
            "{error}"
        );
        // Following the steps succeeds.
        for archive in &set.archives {
            fs::copy(mirror.path().join(&archive.file), place.archive(archive)).unwrap();
        }
        assert_eq!(fetch(&set, &place, &Origin::Published).0.unwrap(), Outcome::Fetched);
    }

    #[test]
    fn archives_missing_from_a_folder_are_named() {
        let (set, mirror) = set_and_mirror();
        fs::remove_file(mirror.path().join("b.mat")).unwrap();
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path().join("dtd"));
        let error = format!("{:#}", fetch(&set, &place, &Origin::Folder(mirror.path().into())).0.unwrap_err());
        assert!(error.contains("it does not contain b.mat") && !error.contains("a.tar ("), "{error}");
        let none = Origin::Folder(mirror.path().join("none"));
        let error = format!("{:#}", fetch(&set, &Place::new(home.path().join("x")), &none).0.unwrap_err());
        assert!(error.contains("none is neither a folder"), "{error}");
    }

    #[test]
    fn an_archive_without_the_root_is_not_published() {
        let (mut set, mirror) = set_and_mirror();
        set.root = "elsewhere".into();
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path().join("dtd"));
        let origin = Origin::Folder(mirror.path().into());
        let error = format!("{:#}", fetch(&set, &place, &origin).0.unwrap_err());
        assert!(error.contains("do not contain the folder elsewhere"), "{error}");
        assert!(!place.folder().join("dtd").exists());
        // The next run starts over.
        set.root = "dtd".into();
        assert_eq!(fetch(&set, &place, &origin).0.unwrap(), Outcome::Fetched);
    }

    #[test]
    fn urls_and_folders_are_distinguished() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        assert_eq!(origin("https://host/data/"), Origin::Mirror("https://host/data".into()));
        assert_eq!(origin("http/data"), Origin::Folder("http/data".into()));
    }
}
