//! The C++ bridge to libtorch and the C side of the JPEG decoder.

#[cfg(feature = "torch")]
use std::path::Path;
use std::{env, fs, path::PathBuf};

#[cfg(feature = "torch")]
const BRIDGE: [&str; 5] = ["src/bridge.cpp", "src/memory.cpp", "src/norm.cpp", "src/recompute.cpp", "src/bridge.h"];

/// The functions of libtorch that tch lacks.
#[cfg(feature = "torch")]
pub fn bridge(lib: &Path) {
    let include = match env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => PathBuf::from(folder).join("include"),
        None => lib.with_file_name("include"),
    };
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .files(BRIDGE.iter().filter(|file| file.ends_with(".cpp")))
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .std("c++17")
        .flag_if_supported("-fopenmp")
        // The vectors of norm.cpp are passed between its own inlined functions only.
        .flag_if_supported("-Wno-psabi")
        .opt_level(3)
        .warnings(false);
    compile_once(&mut build, "caco_bridge", &BRIDGE);
    println!("cargo:rustc-link-lib=dylib=stdc++");
    // The OpenMP runtime that libtorch already uses: one soname, one library.
    println!("cargo:rustc-link-lib=dylib=gomp");
}

/// libjpeg reports errors by a call that must not return. C can leave it by longjmp, Rust cannot: hence a shim in C.
pub fn jpeg() {
    // mozjpeg-sys passes on the folders of the headers it was built with.
    let headers = env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its include folders");
    let mut build = cc::Build::new();
    build.file("src/data/jpeg.c").includes(env::split_paths(&headers)).warnings(true);
    compile_once(&mut build, "caco_jpeg", &["src/data/jpeg.c"]);
}

/// Compiles a library where its sources or its compiler's options are not those of last time. This script runs at every
/// edit of the source, and the bridge takes a minute.
fn compile_once(build: &mut cc::Build, name: &str, sources: &[&str]) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names an output folder"));
    let (library, note) = (out.join(format!("lib{name}.a")), out.join(format!("{name}.inputs")));
    let mut inputs = format!("{build:?}").into_bytes();
    for source in sources {
        inputs.extend(fs::read(source).unwrap_or_else(|e| panic!("cannot read {source}: {e}")));
    }
    let digest = blake3::hash(&inputs).to_hex().to_string();
    build.cargo_metadata(false);
    if !library.exists() || fs::read_to_string(&note).unwrap_or_default() != digest {
        build.compile(name);
        fs::write(&note, digest).unwrap_or_else(|e| panic!("cannot write {}: {e}", note.display()));
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static={name}");
}
