//! Computes the checksums of a file and compares them with the expected ones.

use super::Archive;
use anyhow::{Context, Result};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt::Write, fs::File, io::Read, path::Path};

/// Length and checksums of a file; checksums in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    pub bytes: u64,
    pub md5: String,
    pub sha256: String,
}

/// A property in which a file differs from the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The property: length, SHA-256 or MD5.
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

/// Reads a file once, reporting progress in bytes.
pub fn of(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Digests> {
    let read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(read)?;
    let (mut md5, mut sha256, mut bytes) = (Md5::new(), Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).with_context(read)?;
        if count == 0 {
            break;
        }
        md5.update(&buffer[..count]);
        sha256.update(&buffer[..count]);
        bytes += count as u64;
        progress(bytes);
    }
    Ok(Digests { bytes, md5: hex(&md5.finalize()), sha256: hex(&sha256.finalize()) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all text");
        text
    })
}

impl Digests {
    /// The first property of the archive that differs here.
    pub fn mismatch(&self, archive: &Archive) -> Option<Mismatch> {
        let figures = [
            ("length", archive.bytes.map(|bytes| bytes.to_string()), self.bytes.to_string()),
            ("SHA-256", archive.sha256.clone(), self.sha256.clone()),
            ("MD5", archive.md5.clone(), self.md5.clone()),
        ];
        let mismatch = |(what, expected, found): (_, Option<String>, _)| Some((what, expected?, found));
        let mut known = figures.into_iter().filter_map(mismatch);
        let (what, expected, found) = known.find(|(_, expected, found)| expected != found)?;
        Some(Mismatch { what, expected, found })
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "its {} is {}, {} was expected", self.what, self.found, self.expected)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Unpack;

    /// An archive of which only the name is known.
    pub fn archive(file: &str) -> Archive {
        Archive {
            file: file.into(),
            urls: vec![],
            bytes: None,
            md5: None,
            sha256: None,
            unpack: Unpack::No,
            nested: vec![],
            unpacked: None,
            into: String::new(),
        }
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 1321, appendix A.5, and FIPS 180-2, appendix B.1.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let mut reports = vec![];
        let digests = of(&path, &mut |bytes| reports.push(bytes)).unwrap();
        assert_eq!(digests.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(digests.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((digests.bytes, reports), (3, vec![3]));
        assert!(format!("{:#}", of(&folder.path().join("x"), &mut |_| ()).unwrap_err()).contains("cannot read"));
    }

    #[test]
    fn known_properties_are_compared() {
        let found = Digests { bytes: 3, md5: "a".into(), sha256: "b".into() };
        let with = |bytes, md5: Option<&str>, sha256: Option<&str>| {
            let archive = Archive { bytes, md5: md5.map(Into::into), sha256: sha256.map(Into::into), ..archive("x") };
            found.mismatch(&archive).map(|mismatch| mismatch.what)
        };
        assert_eq!(with(None, None, None), None);
        assert_eq!(with(Some(3), Some("a"), Some("b")), None);
        assert_eq!(with(Some(4), Some("a"), Some("b")), Some("length"));
        assert_eq!(with(Some(3), Some("x"), Some("b")), Some("MD5"));
        assert_eq!(with(Some(3), Some("a"), Some("x")), Some("SHA-256"));
    }
}
