//! Tar archives (POSIX ustar and pax, GNU long names), read front to back.
//!
//! Headers are read raw: the `tar` crate would read a name of any length into memory, and would accept an archive that
//! is truncated between two files.

use super::target::Target;
use anyhow::{Context, Result, bail, ensure};
use std::{
    cell::Cell,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
    rc::Rc,
};
use tar::{Archive, Entry, EntryType, PaxExtensions};

/// The block size of headers and contents.
const BLOCK: u64 = 512;
/// Maximum length of a name, and of a header with names and attributes.
const NAME: u64 = 64 << 10;

/// Unpacks an archive.
pub fn unpack(reader: impl Read, target: &mut Target) -> Result<()> {
    let read = Rc::new(Cell::new(0));
    let counted = Counted { reader, read: read.clone(), limit: target.left() };
    let mut archive = Archive::new(counted);
    let (mut end, mut name) = (0, None);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        end = entry.raw_file_position().saturating_add(entry.size().div_ceil(BLOCK).saturating_mul(BLOCK));
        match entry.header().entry_type() {
            EntryType::GNULongName => name = Some(long_name(&mut entry)?),
            EntryType::XHeader => name = path_of_pax(&mut entry)?.or(name),
            // Attributes of all following entries; none are used.
            EntryType::XGlobalHeader => {}
            _ => one(&mut entry, name.take(), target)?,
        }
    }
    // An empty block follows the last file; without it, the archive is truncated between two files.
    ensure!(read.get() >= end.saturating_add(BLOCK), "the archive is truncated: it has no end marker");
    // The rest is padding. Reading it verifies the checksum of a compressed archive.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

/// Unpacks an entry. `name` is the long name from a preceding entry, if any.
fn one<R: Read>(entry: &mut Entry<R>, name: Option<Vec<u8>>, target: &mut Target) -> Result<()> {
    let bytes = name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let name = Path::new(OsStr::from_bytes(&bytes));
    let size = entry.size();
    let done = match entry.header().entry_type() {
        // Before POSIX, a folder was a file whose name ends in a slash.
        EntryType::Regular | EntryType::Continuous if bytes.ends_with(b"/") && size == 0 => target.directory(name),
        EntryType::Regular | EntryType::Continuous => target.file(name, size, entry),
        EntryType::Directory => target.directory(name),
        kind => Err(refusal(kind)),
    };
    done.with_context(|| format!("entry '{}'", name.display()))
}

fn refusal(kind: EntryType) -> anyhow::Error {
    let what = match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file",
        _ => return anyhow::anyhow!("it is of the unknown kind {:?}", char::from(kind.as_byte())),
    };
    anyhow::anyhow!("it is {what}; only files and folders are unpacked")
}

fn long_name<R: Read>(entry: &mut Entry<R>) -> Result<Vec<u8>> {
    let mut name = header(entry)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The name that a pax header gives to the next entry.
fn path_of_pax<R: Read>(entry: &mut Entry<R>) -> Result<Option<Vec<u8>>> {
    let (bytes, mut path) = (header(entry)?, None);
    for field in PaxExtensions::new(&bytes) {
        let field = field.map_err(damaged)?;
        match field.key_bytes() {
            b"path" => path = Some(field.value_bytes().to_vec()),
            // Programs disagree on which of the two lengths of a file counts.
            b"size" => bail!("a pax header sets the length of a file; such archives are not supported"),
            _ => {}
        }
    }
    Ok(path)
}

/// The contents of a header entry, which describes another entry.
fn header<R: Read>(entry: &mut Entry<R>) -> Result<Vec<u8>> {
    let size = entry.size();
    ensure!(size <= NAME, "the archive has a name or header of {size} bytes; the limit is {NAME}");
    let mut bytes = vec![];
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    ensure!(bytes.len() as u64 == size, "the archive is truncated in a header");
    Ok(bytes)
}

fn damaged(error: io::Error) -> anyhow::Error {
    // The crate's messages for a truncated archive.
    let said = ["unexpected EOF", "failed to read entire block"].iter().any(|words| error.to_string().contains(words));
    let cut = error.kind() == io::ErrorKind::UnexpectedEof || said;
    anyhow::anyhow!("the archive is {}: {error}", if cut { "truncated" } else { "damaged" })
}

/// A reader that counts the bytes read and stops at a limit.
struct Counted<R> {
    reader: R,
    read: Rc<Cell<u64>>,
    limit: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        if self.read.get() > self.limit {
            return Err(io::Error::other("it exceeds the size limit"));
        }
        Ok(count)
    }
}
