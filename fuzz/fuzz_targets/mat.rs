#![no_main]
//! MAT-files.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = caco::data::mat::parse(bytes);
});
