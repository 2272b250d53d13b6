//! Reads tensors from the bytes of a safetensors file, without a tensor library
//! (<https://github.com/huggingface/safetensors>: the header's length as u64, the header as JSON, the data).

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Maximum length of a header, as in the reference implementation.
const LONGEST_HEADER: usize = 100_000_000;

/// The tensors of a file by name, and its metadata.
#[derive(Debug)]
pub struct TensorFile<'a> {
    /// The tensors.
    pub tensors: BTreeMap<String, TensorView<'a>>,
    /// Text by key.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor in the bytes of its file.
#[derive(Debug, PartialEq)]
pub struct TensorView<'a> {
    /// The type as written in the format: `F32`, `I64`.
    pub dtype: String,
    /// The length of each dimension.
    pub shape: Vec<usize>,
    /// The numbers, little-endian.
    pub data: &'a [u8],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

#[derive(Deserialize)]
struct Headers {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Header>,
}

impl<'a> TensorFile<'a> {
    /// Parses the bytes of a file. Errors describe the fault.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (length, rest) = bytes.split_first_chunk().context("it is shorter than a header")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        ensure!(length <= rest.len() && length <= LONGEST_HEADER, "its header of {length} bytes is missing");
        let (header, data) = rest.split_at(length);
        let Headers { metadata, tensors } = serde_json::from_slice(header).context("its header")?;
        let view = |(name, header): (String, Header)| {
            let Header { dtype, shape, data_offsets: (from, to) } = header;
            let data = data.get(from..to).with_context(|| format!("its tensor '{name}' is missing"))?;
            let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
            let bits = bits(&dtype).with_context(|| format!("its tensor '{name}' is of the unknown type {dtype}"))?;
            let fits = count.and_then(|count| count.checked_mul(bits)) == Some(data.len() * 8);
            ensure!(fits, "its tensor '{name}' of shape {shape:?} has {} bytes", data.len());
            Ok((name, TensorView { dtype, shape, data }))
        };
        Ok(TensorFile { tensors: tensors.into_iter().map(view).collect::<Result<_>>()?, metadata })
    }
}

fn bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" => 64,
        _ => return None,
    })
}

impl TensorView<'_> {
    /// The numbers, if they are 32- or 64-bit floats.
    pub fn floats(&self) -> Option<Vec<f64>> {
        match &*self.dtype {
            "F32" => Some(self.each(|bytes| f64::from(f32::from_le_bytes(bytes)))),
            "F64" => Some(self.each(f64::from_le_bytes)),
            _ => None,
        }
    }

    /// The numbers, if they are 64-bit integers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        (self.dtype == "I64").then(|| self.each(i64::from_le_bytes))
    }

    fn each<const N: usize, T>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.data.chunks_exact(N).map(|bytes| read(bytes.try_into().expect("chunks have N bytes"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn tensors_and_metadata_are_read() {
        let header = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "y":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#;
        let data = [1.5f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat();
        let bytes = file(header, &[&data[..], &7i64.to_le_bytes()].concat());
        let read = TensorFile::read(&bytes).unwrap();
        assert_eq!(read.metadata["a"], "b");
        assert_eq!(read.tensors["x"].floats().unwrap(), [1.5, 2.0]);
        assert_eq!(read.tensors["y"].integers().unwrap(), [7]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let one = |shape: &str, to: usize| {
            file(&format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#), &[0; 8])
        };
        assert!(TensorFile::read(&one("[2]", 8)).is_ok());
        let huge = format!("[{0},{0}]", usize::MAX);
        for bytes in
            [vec![], vec![255; 9], one("[2]", 9), one("[3]", 8), one(&huge, 8), file("{", &[]), file("[]", &[])]
        {
            assert!(TensorFile::read(&bytes).is_err(), "{bytes:?}");
        }
    }
}
