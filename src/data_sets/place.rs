//! The folder of a data set: the original archives in `archives/`, the unpacked files beside it, and in `.unpacked` the
//! list of archives they came from.
//!
//! Archives are unpacked in `.unpacking` and moved once all are complete. Its own `.unpacked` is written when it is
//! complete and moved last, so that after a crash the next run knows whether to start over or to move the rest.

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

/// A record of an unpacked archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    pub file: String,
    #[serde(flatten)]
    pub digests: Digests,
}

/// How much of a data set is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Presence")]
pub enum State {
    /// The whole data set, unpacked.
    Here,
    /// Archives or partial downloads.
    Partly,
    Absent,
}

/// While held, no other process fetches into the folder.
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

    /// The path of an archive.
    pub fn archive(&self, archive: &Archive) -> PathBuf {
        self.folder.join(ARCHIVES).join(&archive.file)
    }

    /// Creates the folder and locks it.
    pub fn lock(&self) -> Result<Lock> {
        let archives = self.folder.join(ARCHIVES);
        fs::create_dir_all(&archives).with_context(|| format!("cannot create the folder {}", archives.display()))?;
        let path = self.folder.join(LOCK);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another `caco data fetch` is running in {}; wait until it has finished", self.folder.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// How much of a data set is present here.
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

    /// Whether the data set is unpacked here, from the archives in the catalogue.
    pub fn holds(&self, set: &DataSet) -> bool {
        let stamps = self.stamps();
        let right = |archive: &Archive| {
            stamps.iter().any(|stamp| stamp.file == archive.file && stamp.digests.mismatch(archive).is_none())
        };
        self.folder.join(&set.root).is_dir() && set.archives.iter().all(right)
    }

    /// The archives that were unpacked here; empty if the record cannot be read.
    fn stamps(&self) -> Vec<Stamp> {
        let bytes = fs::read(self.folder.join(STAMP)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Completes an interrupted run: moves its unpacked files, or removes them if incomplete.
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

    /// Creates an empty folder to unpack into.
    pub fn stage(&self) -> Result<PathBuf> {
        let staging = self.folder.join(STAGING);
        fs::create_dir(&staging).with_context(|| format!("cannot create the folder {}", staging.display()))?;
        Ok(staging)
    }

    /// Once all archives are unpacked: makes the result durable and moves it to its final place.
    pub fn finish(&self, stamps: &[Stamp]) -> Result<()> {
        let staging = self.folder.join(STAGING);
        for entry in entries(&staging)? {
            self.vacant(Path::new(entry.file_name().unwrap_or_default()))?;
        }
        let (draft, path) = (staging.join(".unpacked.new"), staging.join(STAMP));
        let text = serde_json::to_vec_pretty(stamps).expect("strings and numbers can be written");
        fs::write(&draft, text).with_context(|| cannot_write(&draft))?;
        // The stamp gets its name only once its content, and all it describes, is on disk.
        sync(&staging)?;
        fs::rename(&draft, &path).with_context(|| cannot_write(&path))?;
        self.publish()
    }

    /// Fails if the destination already exists. Only the first component of the path is checked, as it is moved as a
    /// whole.
    pub fn vacant(&self, path: &Path) -> Result<()> {
        let Some(first) = path.components().next() else { return Ok(()) };
        let to = self.folder.join(first);
        ensure!(
            !to.exists(),
            "{} already exists and was not unpacked from these archives; move it away, or name another folder with --to",
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

/// The entries of a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("cannot read the folder {}", folder.display());
    let entries = fs::read_dir(folder).with_context(read)?;
    entries.map(|entry| Ok(entry.with_context(read)?.path())).collect()
}

/// Waits until everything written is on disk, for a hundred thousand files at once.
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
    fn unpacked_files_appear_once_complete() {
        let (_folder, place) = place();
        unpack(&place);
        assert!(!place.holds(&set("1")) && !place.folder().join("dtd").exists());
        place.finish(&stamps()).unwrap();
        assert_eq!(place.state(&set("1")), State::Here);
        assert!(place.folder().join("more/y").exists() && !place.folder().join(STAGING).exists());
        // The catalogue now has another archive.
        assert_eq!(place.state(&set("9")), State::Absent);
        fs::write(part_of(&place.archive(&set("9").archives[0])), "").unwrap();
        assert_eq!(place.state(&set("9")), State::Partly);
        // A stamp without files is not a data set.
        fs::remove_dir_all(place.folder().join("dtd")).unwrap();
        assert!(!place.holds(&set("1")));
    }

    #[test]
    fn an_interrupted_run_is_completed() {
        let (_folder, place) = place();
        // Interrupted before everything was unpacked: removed.
        let staging = unpack(&place);
        place.recover().unwrap();
        assert!(!staging.exists() && !place.folder().join("dtd").exists());
        // Interrupted after one of two folders was moved: the other one follows.
        let staging = unpack(&place);
        fs::write(staging.join(STAMP), serde_json::to_vec(&stamps()).unwrap()).unwrap();
        fs::rename(staging.join("dtd"), place.folder().join("dtd")).unwrap();
        assert!(!place.holds(&set("1")));
        place.recover().unwrap();
        assert!(place.holds(&set("1")) && place.folder().join("more/y").exists() && !staging.exists());
    }

    #[test]
    fn existing_files_are_not_overwritten() {
        let (_folder, place) = place();
        fs::create_dir(place.folder().join("dtd")).unwrap();
        unpack(&place);
        let error = format!("{:#}", place.finish(&stamps()).unwrap_err());
        assert!(error.contains("set/dtd already exists") && error.contains("--to"), "{error}");
        assert!(!place.holds(&set("1")));
    }

    #[test]
    fn two_do_not_fetch_at_once() {
        let (_folder, place) = place();
        let lock = place.lock().unwrap();
        let error = format!("{:#}", place.lock().err().unwrap());
        assert!(error.contains("another `caco data fetch` is running"), "{error}");
        drop(lock);
        place.lock().unwrap();
    }
}
