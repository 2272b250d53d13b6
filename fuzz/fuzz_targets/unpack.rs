#![no_main]
//! Archives of data sets: the first byte selects the format. The unpacked files must be in the folder, and bounded.

use caco_data_sets::{Archive, unpack};
use std::path::Path;

const BOUND: u64 = 1 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let how = ["Tar", "TarGz", "Zip"][usize::from(*choice) % 3];
    let text = format!("(file: \"a\", unpack: {how}, unpacked: Some({BOUND}))");
    let archive: Archive = ron::from_str(&text).expect("an archive of the catalogue");
    let root = tempfile::tempdir().expect("a folder can be created");
    let (from, to) = (root.path().join("a"), root.path().join("to"));
    std::fs::write(&from, bytes).expect("a file can be written");
    let _ = unpack::unpack(&archive, &from, &to, &mut |_| ());
    assert!(files(&to) <= BOUND);
    let beside = std::fs::read_dir(root.path()).expect("the folder exists").count();
    assert!(beside <= 2, "a file was written outside the folder");
});

/// Total bytes below a folder, which must contain only files and folders.
fn files(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| {
        let kind = entry.file_type().expect("it exists");
        assert!(kind.is_file() || kind.is_dir(), "{} is neither file nor folder", entry.path().display());
        if kind.is_dir() { files(&entry.path()) } else { entry.metadata().expect("it exists").len() }
    };
    entries.map(|entry| size(entry.expect("it exists"))).sum()
}
