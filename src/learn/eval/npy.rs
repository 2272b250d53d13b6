//! Writes a matrix in NumPy's format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, version
//! 1.0.

use anyhow::{Context as _, Result};
use std::{fs, path::Path};
use tch::{Kind, Tensor};

/// Writes f32 [n, d].
pub fn write(path: &Path, matrix: &Tensor) -> Result<()> {
    let (n, d) = matrix.size2()?;
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {d}), }}").into_bytes();
    // Magic, version, length and header take a multiple of 64 bytes, the last of which is a line feed.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.resize(padded - 1, b' ');
    header.push(b'\n');
    let values = Vec::<f32>::try_from(matrix.to_kind(Kind::Float).contiguous().view(-1))?;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(padded).context("a header of a matrix is short")?.to_le_bytes());
    bytes.extend(header);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&path, &Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([3, 2])).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(bytes.len(), 128 + 24);
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), } "));
        assert_eq!(bytes[127], b'\n');
        assert_eq!(bytes[128..132], 1.0f32.to_le_bytes());
        // libtorch's reader of the format agrees.
        assert_eq!(
            Tensor::read_npy(&path).unwrap(),
            Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([3, 2])
        );
    }
}
