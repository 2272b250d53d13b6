//! Zip archives, stored and deflated.

use super::target::Target;
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
};
use zip::{ZipArchive, read::ZipFile};

/// The file type bits of a Unix mode, and the types that are unpacked.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// The signature of a directory record, and the length of a record without names.
const RECORD: &[u8] = b"PK\x01\x02";
const LENGTH: usize = 46;

/// Unpacks an archive.
pub fn unpack(reader: impl Read + Seek, target: &mut Target) -> Result<()> {
    let mut archive = ZipArchive::new(reader).context("the archive is damaged or truncated")?;
    apart(&mut archive)?;
    for number in 0..archive.len() {
        let name = archive.name_for_index(number).unwrap_or("?").to_owned();
        let mut entry = archive.by_index(number).with_context(|| format!("entry '{name}'"))?;
        one(&mut entry, target).with_context(|| format!("entry '{name}'"))?;
    }
    let (start, count) = (archive.central_directory_start(), archive.len() as u64);
    let records = records(archive.into_inner(), start).context("the archive is damaged")?;
    ensure!(
        records == count,
        "two entries of the archive have the same name: it has {records} entries but {count} names"
    );
    Ok(())
}

/// Rejects entries that share bytes, which is how a small archive expands into a large one.
fn apart<R: Read + Seek>(archive: &mut ZipArchive<R>) -> Result<()> {
    let mut places = vec![];
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).context("the archive is damaged or truncated")?;
        let end = entry.data_start().checked_add(entry.compressed_size()).context("an entry is outside the archive")?;
        places.push((entry.header_start(), end, entry.name().to_owned()));
    }
    places.sort();
    let overlap = places.windows(2).find(|pair| pair[0].1 > pair[1].0);
    match overlap {
        Some(pair) => bail!("its entries '{}' and '{}' overlap", pair[0].2, pair[1].2),
        None => Ok(()),
    }
}

/// The number of entries in the directory. The crate keeps one per name.
fn records(mut reader: impl Read + Seek, start: u64) -> Result<u64> {
    reader.seek(SeekFrom::Start(start))?;
    let (mut count, mut record) = (0, [0; LENGTH]);
    loop {
        match reader.read_exact(&mut record) {
            Ok(()) if record.starts_with(RECORD) => {}
            _ => return Ok(count),
        }
        let length = |at: usize| i64::from(u16::from_le_bytes([record[at], record[at + 1]]));
        reader.seek(SeekFrom::Current(length(28) + length(30) + length(32)))?;
        count += 1;
    }
}

fn one<R: Read>(entry: &mut ZipFile<R>, target: &mut Target) -> Result<()> {
    let kind = entry.unix_mode().map_or(0, |mode| mode & KIND);
    let name = entry.name().to_owned();
    match kind {
        0 | FILE | FOLDER => {}
        0o120_000 => bail!("it is a symbolic link; only files and folders are unpacked"),
        _ => bail!("it is a device or a pipe; only files and folders are unpacked"),
    }
    if entry.is_dir() {
        return target.directory(Path::new(&name));
    }
    let size = entry.size();
    target.file(Path::new(&name), size, entry)
}
