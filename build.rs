//! Compiles the C++ bridge to libtorch, and tells the linker where libtorch is at run time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys passes on the folder it linked against; its own rpath reaches only its own targets.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "torch")]
        bridge(std::path::Path::new(&lib));
    }
}

#[cfg(feature = "torch")]
fn bridge(lib: &std::path::Path) {
    println!("cargo:rerun-if-changed=src/bridge.cpp");
    let include = match std::env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => std::path::PathBuf::from(folder).join("include"),
        None => lib.with_file_name("include"),
    };
    cc::Build::new()
        .cpp(true)
        .file("src/bridge.cpp")
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
