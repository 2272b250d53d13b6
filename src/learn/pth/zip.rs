//! Locates the entries of a PyTorch archive: a zip as written by `torch.save`, with stored, never compressed entries.
//! Nothing else is accepted, so no entry can be larger than the file (PKWARE, APPNOTE.TXT 6.3.10).

use anyhow::{Context as _, Result, bail, ensure};
use std::{collections::BTreeMap, fs::File, ops::Range, os::unix::fs::FileExt};

/// Maximum size of a central directory. A ResNet-50 with its optimizer needs a tenth of a megabyte.
const DIRECTORY: u64 = 64 << 20;
/// Length of an end record without a comment, and of the longest comment.
const END: u64 = 22;
const COMMENT: u64 = 0xffff;

/// The byte range of each entry in the file, by name. An error if an entry is compressed or encrypted, is outside the
/// file, overlaps another or has the same name.
pub fn entries(file: &File) -> Result<BTreeMap<String, Range<u64>>> {
    let length = file.metadata()?.len();
    let directory = directory(file, length)?;
    ensure!(directory.length <= DIRECTORY, "its directory has {} bytes; the limit is {DIRECTORY}", directory.length);
    let end = directory.start.checked_add(directory.length).filter(|end| *end <= length);
    ensure!(end.is_some(), "its directory is outside the file; is the file truncated?");
    let bytes = read(file, directory.start, directory.length)?;
    let mut fields = Fields { bytes: &bytes };
    let parsed = (0..directory.count).map(|_| Entry::parse(&mut fields).context("its directory is damaged"));
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    let script = parsed.iter().any(|entry| entry.name.ends_with("/constants.pkl"));
    ensure!(
        !script,
        "it is a TorchScript archive, a program with its weights; load it in Python with torch.jit.load, and save its \
         state_dict with torch.save"
    );
    let mut entries = BTreeMap::new();
    for entry in parsed {
        let place = entry.place(file, directory.start).with_context(|| format!("entry '{}'", entry.name))?;
        if entries.insert(entry.name.clone(), place).is_some() {
            bail!("it has two entries '{}'", entry.name);
        }
    }
    let mut places: Vec<_> = entries.iter().filter(|(_, place)| !place.is_empty()).collect();
    places.sort_by_key(|(_, place)| place.start);
    for pair in places.windows(2) {
        ensure!(pair[0].1.end <= pair[1].1.start, "its entries '{}' and '{}' overlap", pair[0].0, pair[1].0);
    }
    Ok(entries)
}

/// Reads a range of the file.
pub fn read(file: &File, start: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length)?];
    file.read_exact_at(&mut bytes, start).context("the file is truncated")?;
    Ok(bytes)
}

struct Directory {
    start: u64,
    length: u64,
    count: u64,
}

/// Finds the central directory from the end of the file.
fn directory(file: &File, length: u64) -> Result<Directory> {
    let from = length.saturating_sub(END + COMMENT);
    let tail = read(file, from, length - from)?;
    let ends_here = |at: &usize| {
        tail[*at..].starts_with(b"PK\x05\x06")
            && tail[*at..]
                .get(20..22)
                .is_some_and(|n| *at + 22 + usize::from(u16::from_le_bytes([n[0], n[1]])) == tail.len())
    };
    let Some(at) = (0..tail.len()).rev().find(ends_here) else { bail!("it has no end record; is it truncated?") };
    let mut fields = Fields { bytes: &tail[at + 4..] };
    let (disk, first, here) = (fields.u16()?, fields.u16()?, fields.u16()?);
    ensure!((disk, first) == (0, 0) || (disk, first) == (0xffff, 0xffff), "it is one part of a multi-part archive");
    let (count, size, start) = (fields.u16()?, fields.u32()?, fields.u32()?);
    if here == u16::MAX || count == u16::MAX || size == u32::MAX || start == u32::MAX {
        return large_directory(file, from + at as u64);
    }
    Ok(Directory { start: start.into(), length: size.into(), count: count.into() })
}

/// The same from the records of a large (zip64) archive, which precede the end record.
fn large_directory(file: &File, end: u64) -> Result<Directory> {
    let locator = read(file, end.checked_sub(20).context("a record is missing")?, 20)?;
    ensure!(locator.starts_with(b"PK\x06\x07"), "the record that locates its directory is missing");
    let record = read(file, Fields { bytes: &locator[8..] }.u64()?, 56)?;
    ensure!(record.starts_with(b"PK\x06\x06"), "the record of its directory is missing");
    let mut fields = Fields { bytes: &record[32..] };
    Ok(Directory { count: fields.u64()?, length: fields.u64()?, start: fields.u64()? })
}

struct Entry {
    name: String,
    stored: u64,
    size: u64,
    header: u64,
    method: u16,
    flags: u16,
}

impl Entry {
    fn parse(fields: &mut Fields) -> Result<Self> {
        ensure!(fields.take(4)? == b"PK\x01\x02", "an entry has no signature");
        fields.take(4)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.take(8)?;
        let (stored, size) = (fields.u32()?, fields.u32()?);
        let lengths = [fields.u16()?, fields.u16()?, fields.u16()?].map(usize::from);
        fields.take(8)?;
        let header = fields.u32()?;
        let name = String::from_utf8(fields.take(lengths[0])?.into()).context("a name is not UTF-8")?;
        let mut entry = Entry { name, stored: stored.into(), size: size.into(), header: header.into(), method, flags };
        entry.widen(fields.take(lengths[1])?)?;
        fields.take(lengths[2])?;
        Ok(entry)
    }

    /// Reads numbers that do not fit in 32 bits from the extra field.
    fn widen(&mut self, extra: &[u8]) -> Result<()> {
        let mut fields = Fields { bytes: extra };
        while fields.bytes.len() >= 4 {
            let (id, length) = (fields.u16()?, fields.u16()?);
            let mut inside = Fields { bytes: fields.take(length.into())? };
            if id != 1 {
                continue;
            }
            for number in [&mut self.size, &mut self.stored, &mut self.header] {
                if *number == u64::from(u32::MAX) {
                    *number = inside.u64()?;
                }
            }
        }
        Ok(())
    }

    /// Its byte range: after its local header, whose names may be longer than the directory's, and before `limit`.
    fn place(&self, file: &File, limit: u64) -> Result<Range<u64>> {
        ensure!(
            self.method == 0,
            "it is compressed, but PyTorch stores entries uncompressed; save the file again with torch.save"
        );
        ensure!(self.flags & 1 == 0, "it is encrypted");
        ensure!(self.stored == self.size, "its two lengths differ: {} and {} bytes", self.stored, self.size);
        ensure!(self.header < limit, "it is outside the file");
        let header = read(file, self.header, 30)?;
        ensure!(header.starts_with(b"PK\x03\x04"), "it has no local header");
        let mut lengths = Fields { bytes: &header[26..] };
        let start = self.header + 30 + u64::from(lengths.u16()?) + u64::from(lengths.u16()?);
        let end = start.checked_add(self.size).filter(|end| *end <= limit);
        Ok(start..end.context("it is longer than the file")?)
    }
}

/// A sequence of little-endian numbers.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else { bail!("a record ends too early") };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
