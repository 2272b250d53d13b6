#![no_main]
//! Pipeline files.

use caco_pipeline::pipeline::{Overlay, Pipeline};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Pipeline::parse("fuzzed.ron".as_ref(), text.to_owned(), &Overlay::default());
});
