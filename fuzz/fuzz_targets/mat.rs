#![no_main]
//! MAT-files.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = caco_data::mat::parse(bytes);
});
