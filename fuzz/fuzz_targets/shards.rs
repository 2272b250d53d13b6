#![no_main]
//! WebDataset's tar archives.

mod tree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let root = tempfile::tempdir().expect("a folder can be created");
    std::fs::write(root.path().join("a.tar"), bytes).expect("a file can be written");
    tree::list(caco_kinds::Format::WebDataset, root.path());
});
