//! Places a command's inputs in its folder: as files and folders, never as links, so that `find`, `tar` and a script that looks
//! beside itself find the same for every input, whatever its size and origin.
//!
//! What is small is copied. What is large is mounted, read-only, or copied where the machine offers no mounts.

use super::{external::External, listing::is_executable, mounts::Mounts};
use anyhow::{Context, Result};
use ignore::gitignore::Gitignore;
use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A file of more bytes than this is large, and so is a folder whose files have more.
const BYTES: u64 = 16 << 20;
/// A folder of more files and folders than this is large.
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
    /// Whether it contains no links, and nothing is left out.
    pub plain: bool,
}

/// Places an input at `at`. Where `mounts` are given, a large one becomes one of them.
pub fn place(given: &Given, at: &Path, mounts: Option<&mut Mounts>) -> Result<()> {
    let mut placer = Placer { left_out: given.at.left_out(), mounts };
    let path = &given.at.path;
    let meta = metadata(path)?;
    if !meta.is_dir() {
        return placer.file(path, at, &meta, given.executable);
    }
    if given.plain && placer.mounts.is_some() && !Small::default().holds(path, "", &placer.left_out)? {
        return placer.mount_folder(path, at);
    }
    placer.folder(path, at, "")
}

struct Placer<'m> {
    left_out: Gitignore,
    mounts: Option<&'m mut Mounts>,
}

impl Placer<'_> {
    fn file(&mut self, from: &Path, at: &Path, meta: &Metadata, executable: bool) -> Result<()> {
        let shown_as_it_is = executable == is_executable(meta);
        match &mut self.mounts {
            Some(mounts) if meta.len() > BYTES && shown_as_it_is => {
                mounts.show(from, at).with_context(|| format!("cannot create {}", at.display()))
            }
            _ => copy(from, at, meta, executable).with_context(|| format!("cannot copy {}", from.display())),
        }
    }

    fn mount_folder(&mut self, from: &Path, at: &Path) -> Result<()> {
        let Some(mounts) = &mut self.mounts else { return Ok(()) };
        mounts.show(from, at).with_context(|| format!("cannot create {}", at.display()))
    }

    /// Places what is in a folder, one by one. `relative` is its path in the input.
    fn folder(&mut self, from: &Path, at: &Path, relative: &str) -> Result<()> {
        fs::create_dir(at).with_context(|| format!("cannot create {}", at.display()))?;
        for (name, path, meta) in entries(from, relative, &self.left_out)? {
            let (at, relative) = (at.join(&name), join(relative, &name));
            if !meta.is_dir() {
                self.file(&path, &at, &meta, is_executable(&meta))?;
            } else if self.mounts.is_some()
                && !Small::default().holds(&path, &relative, &self.left_out)?
                && is_plain(&path, &relative, &self.left_out)?
            {
                self.mount_folder(&path, &at)?;
            } else {
                self.folder(&path, &at, &relative)?;
            }
        }
        // Filling it changed its time, which `tar` writes down.
        let modified = metadata(from)?.modified().and_then(|time| File::open(at)?.set_modified(time));
        modified.with_context(|| format!("cannot set the time of {}", at.display()))
    }
}

/// Counts what a small folder may hold.
#[derive(Default)]
struct Small {
    files: usize,
    bytes: u64,
}

impl Small {
    fn holds(&mut self, folder: &Path, relative: &str, left_out: &Gitignore) -> Result<bool> {
        for (name, path, meta) in entries(folder, relative, left_out)? {
            self.files += 1;
            self.bytes += meta.len();
            let fits = self.files <= FILES && self.bytes <= BYTES;
            if !fits || meta.is_dir() && !self.holds(&path, &join(relative, &name), left_out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether there is no link below a folder, and nothing that is left out.
fn is_plain(folder: &Path, relative: &str, left_out: &Gitignore) -> Result<bool> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
        let relative = join(relative, &entry.file_name().to_string_lossy());
        let excluded = left_out.matched(&relative, kind.is_dir()).is_ignore();
        if kind.is_symlink() || excluded || kind.is_dir() && !is_plain(&entry.path(), &relative, left_out)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The entries of a folder that are not left out: name, path, and what `stat` says of what they lead to.
fn entries(folder: &Path, relative: &str, left_out: &Gitignore) -> Result<Vec<(String, PathBuf, Metadata)>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let relative = join(relative, &name);
        match fs::metadata(&path) {
            Ok(meta) if left_out.matched(&relative, meta.is_dir()).is_ignore() => {}
            Err(_) if left_out.matched(&relative, false).is_ignore() => {}
            meta => found.push((name, path.clone(), meta.with_context(|| format!("cannot read {}", path.display()))?)),
        }
    }
    Ok(found)
}

fn join(relative: &str, name: &str) -> String {
    if relative.is_empty() { name.into() } else { format!("{relative}/{name}") }
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))
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
