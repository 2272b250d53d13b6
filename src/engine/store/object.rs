//! Objects, the bytes by digest: storing a stage's outputs, and materialising them for the next stage.

use super::{Artifact, At, Error, Result, Store, commit::Pending, copy_file, copy_into};
use crate::{
    digest::{self, Digest},
    graph::{METRICS, METRICS_PATH},
    listing::{Entry, Listing},
    stat, walk, writers,
};
use caco_pipeline::kind::Output;
use rayon::prelude::*;
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a stage's outputs could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A declared output is missing.
    #[error("the stage succeeded but did not write its output '{path}'{found}")]
    Missing {
        /// The declared path.
        path: String,
        /// What it wrote instead.
        found: String,
    },
    /// An output cannot be stored.
    #[error("output '{path}': {error}")]
    Unfit {
        /// The declared path.
        path: String,
        /// What is wrong with it.
        error: walk::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Whether an output is a link or contains links. A link that leads out of `out` is an error.
fn linked(out: &Path, output: &Output) -> std::result::Result<bool, IngestError> {
    let path = out.join(&*output.path);
    match walk::has_links_inside(out, &path) {
        Err(walk::Error::Io { error, .. })
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        found => found.map_err(|error| IngestError::Unfit { path: output.name.to_string(), error }),
    }
}

impl Store {
    /// Moves the outputs that a stage wrote to `out` into the store. The target of a link is copied, and must be inside
    /// the folder: the stage did not declare anything else as its output.
    pub fn ingest(
        &self,
        out: &Path,
        outputs: &[Output],
        pending: &mut Pending,
    ) -> std::result::Result<Vec<Artifact>, IngestError> {
        let metrics = Output { name: METRICS.into(), path: METRICS_PATH.into() };
        let undeclared = outputs.iter().all(|o| o.name != METRICS).then_some(&metrics);
        let mut taken: Vec<(&Output, bool, Option<Artifact>)> = vec![];
        for output in outputs.iter().chain(undeclared) {
            // Links are checked first, so that nothing outside the folder is touched.
            let linked = linked(out, output)?;
            self.detach(&out.join(&*output.path))?;
            taken.push((output, linked, None));
        }
        // Before the first is moved: what the stage wrote stays together in its folder if it wrote too little.
        if let Some(missing) = outputs.iter().find(|output| is_missing(&out.join(&*output.path))) {
            return Err(IngestError::Missing { path: missing.path.to_string(), found: found(out) });
        }
        // Links first: their target may be an output too, which would already have moved.
        for links in [true, false] {
            for (output, linked, artifact) in taken.iter_mut().filter(|(_, linked, _)| *linked == links) {
                *artifact = self.ingest_one(&out.join(&*output.path), &output.name, *linked, pending)?;
            }
        }
        let mut artifacts = Vec::with_capacity(taken.len());
        for (output, _, artifact) in taken {
            match artifact {
                Some(artifact) => artifacts.push(artifact),
                None if output.name == METRICS && undeclared.is_some() => {}
                None => return Err(IngestError::Missing { path: output.path.to_string(), found: found(out) }),
            }
        }
        Ok(artifacts)
    }

    fn ingest_one(
        &self,
        path: &Path,
        name: &str,
        linked: bool,
        pending: &mut Pending,
    ) -> std::result::Result<Option<Artifact>, IngestError> {
        let unfit = |error| IngestError::Unfit { path: name.into(), error };
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(unfit(walk::Error::Io { path: path.into(), error })),
        };
        if meta.is_file() {
            let (blake3, sha256, size) = self.take_file(path, linked, pending)?;
            let executable = walk::is_executable(&meta);
            let artifact =
                Artifact { name: name.into(), folder: false, executable, blake3, sha256, size, length: size };
            return Ok(Some(artifact));
        }
        if !meta.is_dir() {
            return Err(unfit(walk::Error::Special { path: path.into() }));
        }
        // The stat cache must not see files that are about to move.
        let none = stat::Cache::none();
        let listing = Listing::of_folder(path, &none).map_err(unfit)?;
        let taken =
            listing.files.par_iter().map(|entry| self.take_entry(path, entry, linked)).collect::<Result<Vec<_>>>()?;
        pending.fresh.extend(taken.into_iter().flatten());
        let text = listing.text();
        let blake3 = Digest::of(text.as_bytes());
        self.put(blake3, text.as_bytes(), pending)?;
        let (size, length) = (listing.size(), text.len() as u64);
        Ok(Some(Artifact {
            name: name.into(),
            folder: true,
            executable: false,
            blake3,
            sha256: digest::sha256(text.as_bytes()),
            size,
            length,
        }))
    }

    fn take_file(&self, path: &Path, linked: bool, pending: &mut Pending) -> Result<(Digest, Digest, u64)> {
        let (blake3, sha256, size) = digest::both_of_file(path).at("read", path)?;
        pending.fresh.extend(self.move_in(path, linked, blake3, size)?);
        Ok((blake3, sha256, size))
    }

    fn take_entry(&self, root: &Path, entry: &Entry, linked: bool) -> Result<Option<PathBuf>> {
        self.move_in(&root.join(&entry.path), linked, entry.digest, entry.size)
    }

    /// Moves a file to the path of its object. Returns the path if the object is new.
    fn move_in(&self, path: &Path, linked: bool, digest: Digest, size: u64) -> Result<Option<PathBuf>> {
        let object = self.object(digest);
        if self.length(digest) == Some(size) {
            return Ok(None);
        }
        // The target of a link may be visited again, and a file with several hard links is not exclusively ours.
        let meta = fs::symlink_metadata(path).at("read", path)?;
        if meta.is_symlink() && !linked {
            return Err(io::Error::other("it became a link while it was being stored")).at("store", path);
        }
        let shared = linked || meta.nlink() > 1;
        let moved = if shared { self.copy_aside(path)? } else { path.to_path_buf() };
        fs::set_permissions(&moved, fs::Permissions::from_mode(0o444)).at("change the mode of", &moved)?;
        self.rename_in(&moved, &object)?;
        Ok(Some(object))
    }

    /// Gives a file, and every file below a folder, a new inode where some process has it open for writing. What is
    /// written through the old one is lost. A missing path is passed over, and links are not followed.
    pub fn detach(&self, path: &Path) -> Result<()> {
        let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
        if meta.is_dir() {
            // The stage may have taken from itself the right to move what is in it.
            if meta.permissions().mode() & 0o700 != 0o700 {
                let mode = fs::Permissions::from_mode(meta.permissions().mode() | 0o700);
                fs::set_permissions(path, mode).at("change the mode of", path)?;
            }
            let mut entries = fs::read_dir(path).at("read", path)?;
            return entries.try_for_each(|entry| self.detach(&entry.at("read", path)?.path()));
        }
        if meta.is_file() && writers::has_writer(path) {
            fs::rename(self.copy_aside(path)?, path).at("replace", path)?;
        }
        Ok(())
    }

    fn copy_aside(&self, path: &Path) -> Result<PathBuf> {
        let aside = self.aside();
        let copied = copy_file(path, &aside);
        if copied.is_err() {
            let _ = fs::remove_file(&aside);
        }
        copied.map(|_| aside)
    }

    fn rename_in(&self, from: &Path, object: &Path) -> Result<()> {
        match fs::rename(from, object) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let shard = object.parent().expect("objects are in a shard");
                fs::create_dir_all(shard).at("create", shard)?;
                fs::rename(from, object).at("write", object)
            }
            other => other.at("write", object),
        }
    }

    /// Writes an object of these bytes.
    pub(super) fn put(&self, digest: Digest, bytes: &[u8], pending: &mut Pending) -> Result<()> {
        let object = self.object(digest);
        if self.length(digest) == Some(bytes.len() as u64) {
            return Ok(());
        }
        let aside = self.aside();
        let written = fs::write(&aside, bytes).at("write", &aside);
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o444)).at("change the mode of", &aside)?;
        self.rename_in(&aside, &object)?;
        pending.fresh.push(object);
        Ok(())
    }

    /// Returns a path at which an output can be read: the object itself, or a folder assembled from its objects.
    pub fn materialise(&self, artifact: &Artifact) -> Result<PathBuf> {
        if !artifact.folder {
            return Ok(self.object(artifact.blake3));
        }
        let tree = self.tree(artifact.blake3);
        if !tree.exists() {
            let aside = self.aside();
            self.write_folder(artifact, &aside, Self::assemble)?;
            fs::create_dir_all(self.root.join("trees")).at("create", &self.root.join("trees"))?;
            match fs::rename(&aside, &tree) {
                Ok(()) => {}
                // Another process was faster.
                Err(_) if tree.exists() => fs::remove_dir_all(&aside).at("remove", &aside)?,
                Err(e) => return Err(e).at("write", &tree),
            }
        }
        Ok(tree)
    }

    /// Copies an output to a place outside the store.
    pub fn export(&self, artifact: &Artifact, to: &Path) -> Result<()> {
        if artifact.folder {
            return self.write_folder(artifact, to, Self::copy_out).map_err(Error::outside);
        }
        Self::copy_out(&self.object(artifact.blake3), to, artifact.executable)
    }

    fn write_folder(&self, artifact: &Artifact, to: &Path, place: fn(&Path, &Path, bool) -> Result<()>) -> Result<()> {
        let listing = self.listing(artifact)?;
        fs::create_dir_all(to).at("create", to)?;
        let mut last = None;
        for file in &listing.files {
            let folder = file.path.rfind('/').map(|slash| &file.path[..slash]);
            if folder != last {
                let folder = to.join(folder.unwrap_or_default());
                fs::create_dir_all(&folder).at("create", &folder)?;
            }
            last = folder;
            place(&self.object(file.digest), &to.join(&file.path), file.executable)?;
        }
        listing
            .empty
            .iter()
            .map(|folder| to.join(folder))
            .try_for_each(|folder| fs::create_dir_all(&folder).at("create", &folder))
    }

    /// Puts a file of a folder into its tree: an object has one mode, so an executable file is a copy.
    fn assemble(object: &Path, to: &Path, executable: bool) -> Result<()> {
        const NO_LINKS: [i32; 4] = [libc::EXDEV, libc::EMLINK, libc::EPERM, libc::EOPNOTSUPP];
        let copy = |mode| {
            // What exists is not written to: it may be a link to another object.
            copy_into(object, fs::File::create_new(to).at("write", to)?, to)?;
            fs::set_permissions(to, fs::Permissions::from_mode(mode)).at("change the mode of", to)
        };
        if executable {
            return copy(0o555);
        }
        match fs::hard_link(object, to) {
            // The file system has no hard links, or the file has too many.
            Err(e) if e.raw_os_error().is_some_and(|code| NO_LINKS.contains(&code)) => copy(0o444),
            other => other.at("link", object),
        }
    }

    fn copy_out(object: &Path, to: &Path, executable: bool) -> Result<()> {
        let mode = fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        let copied = copy_file(object, to).and_then(|()| fs::set_permissions(to, mode).at("change the mode of", to));
        copied.map_err(Error::outside)
    }

    /// Keeps the listing of a folder outside the store, so that `why` can later name the files that differ.
    pub fn keep_listing(&self, listing: &Listing) -> Result<()> {
        let text = listing.text();
        let path = self.root.join("listings").join(Digest::of(text.as_bytes()).to_string());
        if path.exists() {
            return Ok(());
        }
        super::make_folder(&self.root.join("listings"))?;
        super::write_aside(&path, text.as_bytes())
    }

    /// A kept listing. `None` if it was not kept or is damaged.
    pub fn kept_listing(&self, digest: Digest) -> Result<Option<Listing>> {
        let path = self.root.join("listings").join(digest.to_string());
        let text = super::result::read(&path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| Listing::parse(&text).ok()))
    }

    /// Moves a damaged file or folder to the quarantine.
    pub fn set_aside(&self, path: &Path) -> Result<()> {
        let quarantine = self.root.join("quarantine");
        fs::create_dir_all(&quarantine).at("create", &quarantine)?;
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().replace('/', "-");
        let to = quarantine.join(format!("{name}.{}", self.unique()));
        match fs::rename(path, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("set aside", path),
        }
    }

    /// Verifies an object against its digest. A damaged one is quarantined.
    pub fn check_object(&self, digest: Digest) -> Result<bool> {
        let path = self.object(digest);
        let found = match digest::of_file(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e).at("read", &path),
        };
        if found != digest {
            self.set_aside(&path)?;
        }
        Ok(found == digest)
    }
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|e| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// What a stage wrote, for the message about a missing output.
fn found(out: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(out)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.truncate(8);
    if names.is_empty() { "; it wrote nothing".into() } else { format!("; its folder holds {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_is_open_for_writing_gets_a_new_inode_and_another_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let out = folder.path().join("out");
        let [open, closed] = ["below/open", "closed"].map(|name| out.join(name));
        fs::create_dir_all(out.join("below")).unwrap();
        [&open, &closed].iter().for_each(|path| fs::write(path, "early").unwrap());
        let inodes = || [&open, &closed].map(|path| fs::metadata(path).unwrap().ino());
        let before = inodes();
        let mut writer = fs::File::options().append(true).open(&open).unwrap();
        store.detach(&out).unwrap();
        writer.write_all(b"late").unwrap();
        assert_eq!(fs::read_to_string(&open).unwrap(), "early");
        assert!(inodes()[0] != before[0] && inodes()[1] == before[1]);
        assert_eq!(fs::read_dir(out.join("below")).unwrap().count(), 1);
        store.detach(&out.join("none")).unwrap();
    }
}
