//! Where a data set lies: a folder of its own, with the archives as they came in `archives/`, what was unpacked beside it,
//! and in `.unpacked` which archives that was.
//!
//! Archives are unpacked in `.unpacking` and moved when all are there. Its own `.unpacked` is written when it is whole and
//! moves last, so that whoever comes after a crash knows whether to begin anew or to move the rest.

use super::{Archive, DataSet, digest::Digests, download::part_of};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

const ARCHIVES: &str = "archives";
const STAGING: &str = ".unpacking";
const STAMP: &str = ".unpacked";
const LOCK: &str = ".lock";

/// The folder of a data set.
pub struct Place {
    folder: PathBuf,
}

/// An archive that was unpacked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    pub file: String,
    #[serde(flatten)]
    pub digests: Digests,
}

/// How much of a data set is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it, unpacked.
    Here,
    /// Archives, or parts of them.
    Partly,
    Absent,
}

/// Nobody else fetches into the folder while it lives.
pub struct Lock {
    _file: File,
}

impl Place {
    pub fn new(folder: PathBuf) -> Self {
        Place { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where an archive lies, or is to lie.
    pub fn archive(&self, archive: &Archive) -> PathBuf {
        self.folder.join(ARCHIVES).join(&archive.file)
    }

    /// Makes the folder, and locks it.
    pub fn lock(&self) -> Result<Lock> {
        let archives = self.folder.join(ARCHIVES);
        fs::create_dir_all(&archives).with_context(|| format!("cannot make the folder {}", archives.display()))?;
        let path = self.folder.join(LOCK);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another `caco data fetch` is at work in {}; wait until it is done", self.folder.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// How much of a data set is here.
    pub fn state(&self, set: &DataSet) -> State {
        let begun = |archive: &Archive| {
            let path = self.archive(archive);
            path.exists() || part_of(&path).exists()
        };
        match self.holds(set) {
            true => State::Here,
            false if set.archives.iter().any(begun) => State::Partly,
            false => State::Absent,
        }
    }

    /// Whether the data set is unpacked here, of the archives that the catalogue knows.
    pub fn holds(&self, set: &DataSet) -> bool {
        let stamps = self.stamps();
        let right = |archive: &Archive| {
            stamps.iter().any(|stamp| stamp.file == archive.file && stamp.digests.mismatch(archive).is_none())
        };
        self.folder.join(&set.root).is_dir() && set.archives.iter().all(right)
    }

    /// The archives that were unpacked here. A file that cannot be read says of none.
    fn stamps(&self) -> Vec<Stamp> {
        let bytes = fs::read(self.folder.join(STAMP)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Ends what a run before has begun: moves what it has unpacked, or removes it where it is not whole.
    pub fn recover(&self) -> Result<()> {
        let staging = self.folder.join(STAGING);
        if staging.join(STAMP).exists() {
            return self.publish();
        }
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", staging.display()))
            }
            _ => Ok(()),
        }
    }

    /// An empty folder to unpack into.
    pub fn stage(&self) -> Result<PathBuf> {
        let staging = self.folder.join(STAGING);
        fs::create_dir(&staging).with_context(|| format!("cannot make the folder {}", staging.display()))?;
        Ok(staging)
    }

    /// All archives are unpacked: makes it last, and moves it to where it is looked for.
    pub fn finish(&self, stamps: &[Stamp]) -> Result<()> {
        let staging = self.folder.join(STAGING);
        for entry in entries(&staging)? {
            self.vacant(Path::new(entry.file_name().unwrap_or_default()))?;
        }
        let (draft, path) = (staging.join(".unpacked.new"), staging.join(STAMP));
        let text = serde_json::to_vec_pretty(stamps).expect("strings and numbers can be written");
        fs::write(&draft, text).with_context(|| cannot_write(&draft))?;
        // Its name appears when its content, and all that it speaks of, is on the disk.
        sync(&staging)?;
        fs::rename(&draft, &path).with_context(|| cannot_write(&path))?;
        self.publish()
    }

    /// Refuses to unpack where something lies already. Only the first part of the path is looked at: it is moved as a whole.
    pub fn vacant(&self, path: &Path) -> Result<()> {
        let Some(first) = path.components().next() else { return Ok(()) };
        let to = self.folder.join(first);
        ensure!(
            !to.exists(),
            "{} is there already and was not unpacked from these archives; move it away, or say another folder with --to",
            to.display()
        );
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        let staging = self.folder.join(STAGING);
        let rename = |from: &Path| {
            let to = self.folder.join(from.file_name().unwrap_or_default());
            fs::rename(from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
        };
        let stamp = staging.join(STAMP);
        entries(&staging)?.iter().filter(|entry| **entry != stamp).try_for_each(|entry| rename(entry))?;
        sync(&self.folder)?;
        rename(&stamp)?;
        fs::remove_dir(&staging).with_context(|| format!("cannot remove {}", staging.display()))
    }

    /// Removes the archives of a data set. They are not needed once they are unpacked.
    pub fn remove_archives(&self, set: &DataSet) -> Result<()> {
        for path in set.archives.iter().map(|archive| self.archive(archive)).filter(|path| path.exists()) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// What lies in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("cannot read the folder {}", folder.display());
    let entries = fs::read_dir(folder).with_context(read)?;
    entries.map(|entry| Ok(entry.with_context(read)?.path())).collect()
}

/// Waits until all that was written is on the disk, of a hundred thousand files at once.
fn sync(folder: &Path) -> Result<()> {
    let file = File::open(folder).with_context(|| cannot_write(folder))?;
    // SAFETY: the descriptor is open for the length of the call.
    let done = unsafe { libc::syncfs(file.as_raw_fd()) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).with_context(|| cannot_write(folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tests::archive;

    fn place() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path().join("set"));
        place.lock().unwrap();
        (folder, place)
    }

    fn set(md5: &str) -> DataSet {
        let mut set = crate::Catalogue::embedded().get("dtd").unwrap().clone();
        set.archives = vec![Archive { md5: Some(md5.into()), ..archive("a.tar") }];
        set
    }

    fn stamps() -> Vec<Stamp> {
        let digests = Digests { bytes: 1, md5: "1".into(), sha256: "2".into() };
        vec![Stamp { file: "a.tar".into(), digests }]
    }

    fn unpack(place: &Place) -> PathBuf {
        let staging = place.stage().unwrap();
        for file in ["dtd/x", "more/y"] {
            fs::create_dir_all(staging.join(file).parent().unwrap()).unwrap();
            fs::write(staging.join(file), file).unwrap();
        }
        staging
    }

    #[test]
    fn what_is_unpacked_appears_when_it_is_whole() {
        let (_folder, place) = place();
        unpack(&place);
        assert!(!place.holds(&set("1")) && !place.folder().join("dtd").exists());
        place.finish(&stamps()).unwrap();
        assert_eq!(place.state(&set("1")), State::Here);
        assert!(place.folder().join("more/y").exists() && !place.folder().join(STAGING).exists());
        // The catalogue knows another archive by now.
        assert_eq!(place.state(&set("9")), State::Absent);
        fs::write(part_of(&place.archive(&set("9").archives[0])), "").unwrap();
        assert_eq!(place.state(&set("9")), State::Partly);
        // The stamp alone is no data set.
        fs::remove_dir_all(place.folder().join("dtd")).unwrap();
        assert!(!place.holds(&set("1")));
    }

    #[test]
    fn what_a_crash_left_is_ended() {
        let (_folder, place) = place();
        // Before all was unpacked: it is removed.
        let staging = unpack(&place);
        place.recover().unwrap();
        assert!(!staging.exists() && !place.folder().join("dtd").exists());
        // After that, when one of two folders was moved: the other one follows.
        let staging = unpack(&place);
        fs::write(staging.join(STAMP), serde_json::to_vec(&stamps()).unwrap()).unwrap();
        fs::rename(staging.join("dtd"), place.folder().join("dtd")).unwrap();
        assert!(!place.holds(&set("1")));
        place.recover().unwrap();
        assert!(place.holds(&set("1")) && place.folder().join("more/y").exists() && !staging.exists());
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let (_folder, place) = place();
        fs::create_dir(place.folder().join("dtd")).unwrap();
        unpack(&place);
        let told = format!("{:#}", place.finish(&stamps()).unwrap_err());
        assert!(told.contains("set/dtd is there already") && told.contains("--to"), "{told}");
        assert!(!place.holds(&set("1")));
    }

    #[test]
    fn two_do_not_fetch_at_once() {
        let (_folder, place) = place();
        let lock = place.lock().unwrap();
        let told = format!("{:#}", place.lock().err().unwrap());
        assert!(told.contains("another `caco data fetch` is at work"), "{told}");
        drop(lock);
        place.lock().unwrap();
    }
}
