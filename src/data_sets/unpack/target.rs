//! The folder that an archive is unpacked into, with limits on what may be written there.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

/// Upper bounds on the contents of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Total bytes of all files.
    pub bytes: u64,
    /// Number of files and folders.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 3_000_000 }
    }
}

/// The destination of an archive's contents.
pub struct Target<'a> {
    folder: PathBuf,
    limits: Limits,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Target<'a> {
    pub fn new(folder: &Path, limits: Limits, progress: &'a mut dyn FnMut(u64)) -> Self {
        Target { folder: folder.into(), limits, bytes: 0, entries: 0, buffer: vec![0; 1 << 17], progress }
    }

    /// Makes the folder of this file the destination of the following entries.
    pub fn beside(&mut self, file: &Path) -> Result<()> {
        ensure!(file.is_file(), "it contains no such file");
        self.folder = file.parent().context("a file has a folder")?.into();
        Ok(())
    }

    /// How many more bytes are allowed, of files and their headers.
    pub fn left(&self) -> u64 {
        // Allows for headers and padding of an archive of small files.
        (self.limits.bytes - self.bytes).saturating_add(self.limits.entries.saturating_mul(2048))
    }

    /// Creates a folder of the archive, which may be listed repeatedly.
    pub fn directory(&mut self, name: &Path) -> Result<()> {
        self.count()?;
        let path = self.place(name)?;
        fs::create_dir_all(&path)?;
        Ok(())
    }

    /// Writes a file of the archive, whose header says it has `size` bytes.
    pub fn file(&mut self, name: &Path, size: u64, content: &mut dyn Read) -> Result<()> {
        self.count()?;
        let path = self.place(name)?;
        ensure!(path != self.folder, "a file has no name");
        self.allow(size)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("there is another entry with this name")
            }
            file => file?,
        };
        let written = self.copy(content, &mut file)?;
        ensure!(written >= size, "the archive is truncated: the file has {written} of {size} bytes");
        ensure!(written == size, "the file has {written} bytes, the archive says {size}");
        Ok(())
    }

    fn copy(&mut self, content: &mut dyn Read, file: &mut File) -> Result<u64> {
        let mut written = 0;
        loop {
            let count = match content.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    bail!("the archive is truncated: {error}")
                }
                count => count.context("the archive is damaged")?,
            };
            if count == 0 {
                return Ok(written);
            }
            self.allow(count as u64)?;
            file.write_all(&self.buffer[..count])?;
            written += count as u64;
            self.bytes += count as u64;
            (self.progress)(self.bytes);
        }
    }

    fn allow(&self, more: u64) -> Result<()> {
        let bytes = self.limits.bytes;
        let all = self.bytes.checked_add(more).filter(|all| *all <= bytes);
        ensure!(all.is_some(), "the archive exceeds the limit of {bytes} bytes");
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        let entries = self.limits.entries;
        ensure!(self.entries <= entries, "the archive exceeds the limit of {entries} entries");
        Ok(())
    }

    /// The destination path of an entry.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let mut path = self.folder.clone();
        for part in name.components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => {
                    bail!("its path is absolute, so it would leave the folder")
                }
                Component::ParentDir => bail!("its path has '..' in it, so it would leave the folder"),
            }
        }
        Ok(path)
    }
}
