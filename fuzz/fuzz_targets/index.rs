#![no_main]
//! Index files.

use caco_data::Dataset;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let root = tempfile::tempdir().expect("a folder can be created");
    let index = root.path().join("index.jsonl");
    std::fs::write(&index, bytes).expect("a file can be written");
    if let Ok(set) = Dataset::open(&index, root.path()) {
        set.save(&index, &[]).expect("what was read can be written");
        assert_eq!(Dataset::open(&index, root.path()).expect("what was written can be read"), set);
    }
});
