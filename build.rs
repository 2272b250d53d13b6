//! Compiles the C++ bridge to libtorch and the C side of the JPEG decoder, and tells the linker where libtorch is at run
//! time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys passes on the folder it linked against; its own rpath reaches only its own targets.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "torch")]
        bridge(std::path::Path::new(&lib));
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

#[cfg(feature = "torch")]
fn bridge(lib: &std::path::Path) {
    const FILES: [&str; 3] = ["src/bridge.cpp", "src/norm.cpp", "src/bridge.h"];
    FILES.iter().for_each(|file| println!("cargo:rerun-if-changed={file}"));
    let include = match std::env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => std::path::PathBuf::from(folder).join("include"),
        None => lib.with_file_name("include"),
    };
    cc::Build::new()
        .cpp(true)
        .files(FILES.iter().filter(|file| file.ends_with(".cpp")))
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .std("c++17")
        .flag_if_supported("-fopenmp")
        .opt_level(3)
        .warnings(false)
        .compile("caco_bridge");
    // The OpenMP runtime that libtorch already uses: one soname, one library.
    println!("cargo:rustc-link-lib=dylib=gomp");
}
