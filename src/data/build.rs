//! Compiles the C parts of the JPEG decoder.

use std::env;

/// libjpeg reports errors through a callback that must not return. C can leave it by longjmp, Rust cannot: hence a C
/// shim.
fn main() {
    // mozjpeg-sys exports the folders of the headers it was built with.
    let headers = env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its include folders");
    let sources = ["jpeg.c", "idct.c"];
    sources.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    let mut build = cc::Build::new();
    build.files(sources).includes(env::split_paths(&headers)).warnings(true).compile("caco_jpeg");
}
