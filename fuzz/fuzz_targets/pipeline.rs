#![no_main]
//! Pipeline files.

use caco_pipeline::{
    code::Codebase,
    kind::Registry,
    pipeline::{Overlay, Pipeline},
};
use std::sync::LazyLock;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(caco_kinds::all(), Codebase::default()));

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Pipeline::parse("fuzzed.ron".as_ref(), text.to_owned(), &Overlay::default(), &REGISTRY);
});
