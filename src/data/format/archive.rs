//! Tar archives whose members are read in place.

use anyhow::{Context, Result, ensure};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// The block size of tar archives, in bytes.
const BLOCK: u64 = 512;

/// A file inside a tar archive.
pub struct Member {
    /// Its name in the archive.
    pub name: String,
    /// Where its bytes start in the archive's file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A range of a file, as a file of its own.
pub struct Part<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    at: u64,
}

impl<'a> Part<'a> {
    /// `length` bytes starting at `start`.
    pub fn new(file: &'a File, start: u64, length: u64) -> Self {
        Part { file, start, length, at: 0 }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let room = buffer.len().min(self.length.saturating_sub(self.at) as usize);
        let read = self.file.read_at(&mut buffer[..room], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start"))?;
        Ok(self.at)
    }
}

/// The regular files in a tar archive that is a part of `file`; folders, links and devices are skipped. Errors call the
/// archive `name`. A truncated archive is an error.
pub fn members(file: &File, name: &Path, start: u64, length: u64) -> Result<Vec<Member>> {
    let naming = || format!("{} is damaged", name.display());
    let mut archive = tar::Archive::new(Part::new(file, start, length));
    let (mut members, mut end) = (vec![], 0);
    for entry in archive.entries_with_seek().with_context(naming)? {
        let entry = entry.with_context(naming)?;
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        let member = String::from_utf8(entry.path_bytes().into_owned());
        let member = member.with_context(|| format!("{}: a name is not UTF-8", name.display()))?;
        let after = offset.checked_add(bytes).filter(|after| *after <= length);
        end = after.with_context(|| format!("{} ends within {member}; download it again", name.display()))?;
        if entry.header().entry_type().is_file() {
            members.push(Member { name: member, offset: start + offset, bytes });
        }
    }
    ensure!(
        ends(file, start, length, end.next_multiple_of(BLOCK)),
        "{} is truncated; download it again",
        name.display()
    );
    Ok(members)
}

/// Whether an archive has the block of zeros that marks its end.
fn ends(file: &File, start: u64, length: u64, at: u64) -> bool {
    let mut block = [1; BLOCK as usize];
    let mut part = Part::new(file, start, length);
    part.seek(SeekFrom::Start(at)).and_then(|_| part.read_exact(&mut block)).is_ok() && block.iter().all(|b| *b == 0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An archive of files.
    pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(vec![]);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// Bytes, gzipped.
    pub fn gz(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn members_are_at_their_listed_offsets() {
        let long = "n".repeat(150);
        let inner = tar(&[("a.txt", b"one"), (&long, b"twenty-two")]);
        let outer = tar(&[("x", b""), ("inner.tar", &inner)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outer.tar");
        std::fs::write(&path, &outer).unwrap();
        let file = File::open(&path).unwrap();
        let nested = members(&file, &path, 0, outer.len() as u64).unwrap().pop().unwrap();
        let found = members(&file, &path, nested.offset, nested.bytes).unwrap();
        let text = |m: &Member| String::from_utf8(outer[m.offset as usize..][..m.bytes as usize].to_vec()).unwrap();
        let found: Vec<(String, String)> = found.iter().map(|m| (m.name.clone(), text(m))).collect();
        assert_eq!(found, [("a.txt".into(), "one".into()), (long, "twenty-two".into())]);
        for length in [outer.len() - 1024, outer.len() - 1200, 700, 100] {
            assert!(members(&file, &path, 0, length as u64).is_err(), "{length}");
        }
    }
}
