//! Content digests of bytes and files: BLAKE3, and also SHA-256 where a standard requires it.

use super::regular;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    io::{self, Read},
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

/// Files from this size on are read through a memory map by all threads.
const LARGE: u64 = 1 << 22;

/// BLAKE3 of a file of about `size` bytes.
pub fn of_file(path: &Path, size: u64) -> io::Result<Digest> {
    if size >= LARGE {
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        return Ok(Digest(*hasher.finalize().as_bytes()));
    }
    thread_local!(static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        // One byte more than expected, so that one further read detects the end without growing the buffer.
        let mut file = regular::open(path)?;
        buffer.resize(size as usize + 1, 0);
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
        Ok(Digest::of(&buffer[..filled]))
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
    fn every_way_of_reading_a_file_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for size in [0, 1, 1000, LARGE as usize - 1, LARGE as usize + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let expected = Digest::of(&bytes);
            // A wrong guess of the size must not change the digest.
            for guess in [0, 1, size as u64, LARGE] {
                assert_eq!(of_file(&path, guess).unwrap(), expected, "{size} bytes, guessed {guess}");
            }
            assert_eq!(both_of_file(&path).unwrap(), (expected, sha256(&bytes), size as u64));
        }
    }
}
