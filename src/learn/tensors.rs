//! Named tensors in a file, in the safetensors format: <https://github.com/huggingface/safetensors>.
//!
//! Not written with the safetensors crate because equal contents must give equal bytes, and the crate writes metadata
//! in random order.

use anyhow::{Context as _, Result, bail};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};
use tch::{Device, Kind, Tensor};

/// Tensors by name, with string metadata.
#[derive(Debug, Default)]
pub struct Tensors {
    /// The tensors. Those read from a file are contiguous and on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Additional metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Tensors {
    /// Reads a whole file. Errors name the file, and any tensor of unsupported type.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || format!("cannot read tensors from {}", path.display());
        let bytes = fs::read(path).with_context(context)?;
        Self::parse(&bytes).with_context(context)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes)?.iter() {
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let Some(kind) = kind(view.dtype()) else { bail!("tensor '{name}' is of type {:?}", view.dtype()) };
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
                .with_context(|| format!("tensor '{name}' of shape {shape:?}"))?;
            tensors.insert(name.to_string(), tensor);
        }
        Ok(Tensors { tensors, metadata })
    }

    /// Adds a tensor without copying it.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) {
        self.tensors.insert(name.into(), tensor.detach());
    }

    /// Adds the tensors of `named`, prefixing each name with `prefix`, without copying them.
    pub fn extend<'a>(&mut self, prefix: &str, named: impl IntoIterator<Item = (&'a str, &'a Tensor)>) {
        for (name, tensor) in named {
            self.insert(format!("{prefix}{name}"), tensor);
        }
    }

    /// Removes and returns the tensors whose names start with `prefix`, with the prefix stripped.
    pub fn take(&mut self, prefix: &str) -> BTreeMap<String, Tensor> {
        let names: Vec<String> = self.tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        let mut taken = |name: &String| self.tensors.remove(name).expect("a key of the map");
        names.iter().map(|name| (name[prefix.len()..].to_string(), taken(name))).collect()
    }

    /// Writes a file atomically: to a temporary file, synced, then renamed. Equal contents give equal bytes.
    pub fn write(&self, path: &Path) -> Result<()> {
        let aside = path.with_extension("partial");
        let write = || -> Result<()> {
            let mut out = BufWriter::with_capacity(1 << 20, File::create(&aside)?);
            self.write_to(&mut out)?;
            out.into_inner()?.sync_all()?;
            fs::rename(&aside, path)?;
            // The rename survives a power failure only once the folder is synced.
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        write().with_context(|| format!("cannot write tensors to {}", path.display()))
    }

    fn write_to(&self, out: &mut impl Write) -> Result<()> {
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), serde_json::to_value(&self.metadata)?);
        }
        let mut offset = 0;
        for (name, tensor) in &self.tensors {
            let end = offset + tensor.numel() * tensor.kind().elt_size_in_bytes();
            let dtype = dtype(tensor.kind()).with_context(|| format!("tensor '{name}'"))?;
            header.insert(
                name.clone(),
                serde_json::json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [offset, end]}),
            );
            offset = end;
        }
        let mut header = serde_json::to_vec(&header)?;
        // Data starts at a multiple of eight bytes; the format allows trailing spaces in the header.
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in self.tensors.values() {
            write_values(out, tensor)?;
        }
        Ok(())
    }
}

/// Writes the values of a tensor in the order of its indices.
pub fn write_values(out: &mut impl Write, tensor: &Tensor) -> Result<()> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length > 0 {
        // SAFETY: a contiguous CPU tensor holds this many bytes, and outlives the slice.
        out.write_all(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) })?;
    }
    Ok(())
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

fn dtype(kind: Kind) -> Result<&'static str> {
    Ok(match kind {
        Kind::Bool => "BOOL",
        Kind::Uint8 => "U8",
        Kind::Int8 => "I8",
        Kind::Int16 => "I16",
        Kind::Int => "I32",
        Kind::Int64 => "I64",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Float => "F32",
        Kind::Double => "F64",
        other => bail!("type {other:?} has no name in safetensors"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tensors {
        let mut file = Tensors::default();
        file.insert("a.weight", &Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).tr());
        file.insert("a.count", &Tensor::from_slice(&[3i64, -4]));
        file.insert("b", &Tensor::from(2.5f64));
        file.insert("empty", &Tensor::zeros([0, 4], (Kind::Float, Device::Cpu)));
        file.metadata = [("std", "x"), ("mean", "y"), ("model", "z")].map(|(k, v)| (k.into(), v.into())).into();
        file
    }

    #[test]
    fn written_tensors_are_read_back_with_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.safetensors"), folder.path().join("2.safetensors"));
        sample().write(&first).unwrap();
        let read = Tensors::read(&first).unwrap();
        assert_eq!(read.metadata, sample().metadata);
        for (name, tensor) in sample().tensors {
            assert_eq!(read.tensors[&name], tensor, "{name}");
        }
        read.write(&second).unwrap();
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn take_removes_tensors_with_the_prefix() {
        let mut file = sample();
        let taken = file.take("a.");
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["count", "weight"]);
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["b", "empty"]);
    }

    #[test]
    fn a_truncated_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        sample().write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = format!("{:#}", Tensors::read(&path).unwrap_err());
        assert!(error.contains("cut.safetensors"), "{error}");
    }
}
