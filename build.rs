//! Tells the linker where libtorch is at run time, and compiles the C side of the JPEG decoder.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys passes on the folder it linked against; its own rpath reaches only its own targets.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
    #[cfg(feature = "torch")]
    jpeg();
}

/// libjpeg reports errors by a call that must not return. C can leave it by longjmp, Rust cannot: hence a shim in C.
#[cfg(feature = "torch")]
fn jpeg() {
    println!("cargo:rerun-if-changed=src/data/jpeg.c");
    // mozjpeg-sys passes on the folders of the headers it was built with.
    let headers = std::env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its include folders");
    cc::Build::new()
        .file("src/data/jpeg.c")
        .includes(std::env::split_paths(&headers))
        .warnings(true)
        .compile("caco_jpeg");
}
