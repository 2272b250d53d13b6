//! Content digests of bytes and files: BLAKE3, and also SHA-256 where a standard requires it.

use super::regular;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    str::FromStr,
};

/// A BLAKE3 digest (or, where documented, a SHA-256 one). Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// Its 64 hexadecimal digits.
    pub fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        for (i, byte) in self.0.iter().enumerate() {
            text[2 * i] = DIGITS[(byte >> 4) as usize];
            text[2 * i + 1] = DIGITS[(byte & 15) as usize];
        }
        text
    }

    /// The first twelve digits, for messages.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_string()
    }
}

impl schemars::JsonSchema for Digest {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.hex()).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

/// A text that is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not 64 hexadecimal digits")]
pub struct NotADigest(String);

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let error = || NotADigest(text.into());
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(error()),
        };
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (i, pair) in bytes.chunks_exact(2).enumerate() {
            digest[i] = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Digest(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Files from this size on are read and hashed by all threads.
const LARGE: u64 = 1 << 22;
/// A part of a large file that one thread reads and hashes, in a cache of its own.
const PART: u64 = 1 << 18;

/// BLAKE3 of a file.
///
/// # Errors
/// Where it cannot be read, or changed its length meanwhile: nobody could say of what the digest is.
pub fn of_file(path: &Path) -> io::Result<Digest> {
    let file = regular::open(path)?;
    let length = file.metadata()?.len();
    if length >= LARGE { of_large(&file, length) } else { of_small(&file, length as usize) }
}

fn changed(file: &File, before: u64) -> io::Error {
    let now = file.metadata().map_or(0, |meta| meta.len());
    io::Error::other(format!(
        "its length changed from {before} to {now} bytes while it was read; run again when nobody writes to it"
    ))
}

fn of_small(mut file: &File, length: usize) -> io::Result<Digest> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        // One byte more than expected, so that one further read detects the end without growing the buffer.
        buffer.resize(length + 1, 0);
        let mut filled = 0;
        loop {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if filled == buffer.len() {
                buffer.resize(filled * 2, 0);
            }
        }
        // Files of the system, as in /proc, have another length than they say, and say so before and after.
        if filled != length && file.metadata()?.len() != length as u64 {
            Err(changed(file, length as u64))
        } else {
            Ok(Digest::of(&buffer[..filled]))
        }
    })
}

/// Halves the file until each part fits into a processor's cache, where it is hashed as soon as it is read. Not through a
/// memory map: the process would be killed (SIGBUS) where somebody shortens the file.
fn of_large(file: &File, length: u64) -> io::Result<Digest> {
    let (left, right) = halves(file, 0, length).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => changed(file, length),
        _ => error,
    })?;
    let grew = file.read_at(&mut [0], length)? > 0;
    let root = merge_subtrees_root(&left, &right, Mode::Hash);
    if grew { Err(changed(file, length)) } else { Ok(Digest(*root.as_bytes())) }
}

/// The two subtrees of BLAKE3's tree over `length` bytes at `at`. `file` has them all, unless somebody shortens it.
fn halves(file: &File, at: u64, length: u64) -> io::Result<(ChainingValue, ChainingValue)> {
    let left = left_subtree_len(length);
    let (left, right) = rayon::join(|| subtree(file, at, left), || subtree(file, at + left, length - left));
    Ok((left?, right?))
}

fn subtree(file: &File, at: u64, length: u64) -> io::Result<ChainingValue> {
    if length > PART {
        let (left, right) = halves(file, at, length)?;
        return Ok(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(length as usize, 0);
        file.read_exact_at(buffer, at)?;
        Ok(blake3::Hasher::new().set_input_offset(at).update(buffer).finalize_non_root())
    })
}

/// BLAKE3 and SHA-256 of a file in one pass, and its length.
pub fn both_of_file(path: &Path) -> io::Result<(Digest, Digest, u64)> {
    let mut file = regular::open(path)?;
    let (mut blake, mut sha) = (blake3::Hasher::new(), Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        blake.update(&buffer[..n]);
        sha.update(&buffer[..n]);
        length += n as u64;
    }
    Ok((Digest(*blake.finalize().as_bytes()), Digest(sha.finalize().into()), length))
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_published_ones() {
        assert_eq!(Digest::of(b"").to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(sha256(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("zz".parse::<Digest>().is_err() && "A".repeat(64).parse::<Digest>().is_err());
    }

    #[test]
    fn a_file_that_changes_its_length_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for now in [7, 3 * LARGE] {
            let file = File::create(&path).unwrap();
            file.set_len(now).unwrap();
            let read = |before: u64| {
                let file = File::open(&path).unwrap();
                if now >= LARGE { of_large(&file, before) } else { of_small(&file, before as usize) }
            };
            for before in [now + 1, now - 1, now + 2 * LARGE, now / 2] {
                let error = read(before).unwrap_err().to_string();
                assert!(error.contains(&format!("changed from {before} to {now} bytes")), "{error}");
            }
            assert_eq!(read(now).unwrap(), of_file(&path).unwrap());
        }
        assert!(of_file(Path::new("/proc/self/status")).is_ok(), "a file of the system says that it is empty");
    }

    #[test]
    fn every_way_of_reading_a_file_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for size in [
            0,
            1,
            1000,
            LARGE as usize - 1,
            LARGE as usize,
            LARGE as usize + 7,
            3 * LARGE as usize + 3 * PART as usize + 1,
        ] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let expected = Digest::of(&bytes);
            assert_eq!(of_file(&path).unwrap(), expected, "{size} bytes");
            assert_eq!(both_of_file(&path).unwrap(), (expected, sha256(&bytes), size as u64));
        }
    }
}
