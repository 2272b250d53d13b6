//! The pixels that a file is decoded to, for comparison with other programs.

use super::decode::Decoder;
use anyhow::{Context as _, Result};
use caco_views::Raster;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{fs, path::PathBuf};

/// What to decode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// An image.
    pub file: PathBuf,
}

/// The pixels of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Width and height.
    pub size: (usize, usize),
    /// What they are decoded to, by Pillow's name.
    pub mode: &'static str,
    /// SHA-256 of the rows from top to bottom, in hexadecimal; in Python,
    /// `hashlib.sha256(Image.open(file).convert("RGB").tobytes())`.
    pub sha256: String,
}

/// Decodes a file as stages do.
pub fn describe(setup: &Setup) -> Result<Report> {
    let file = setup.file.display();
    let bytes = fs::read(&setup.file).with_context(|| format!("cannot read {file}"))?;
    let mut raster = Raster::default();
    Decoder::default().decode(&bytes, &mut raster).with_context(|| format!("cannot read image {file}"))?;
    let digest = Sha256::digest(raster.to_rgb());
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Report { size: (raster.width, raster.height), mode: "RGB", sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_digested_from_top_to_bottom() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ppm");
        fs::write(&file, b"P6 1 2 255\nabcdef").unwrap();
        let report = describe(&Setup { file: file.clone() }).unwrap();
        assert_eq!((report.size, report.mode), ((1, 2), "RGB"));
        // printf abcdef | sha256sum
        assert_eq!(report.sha256, "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
        fs::write(&file, b"text").unwrap();
        let error = format!("{:#}", describe(&Setup { file }).unwrap_err());
        assert!(error.contains("x.ppm: neither JPEG"), "{error}");
    }
}
