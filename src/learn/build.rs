//! Compiles the functions of libtorch that tch lacks, and passes on where libtorch is.

use std::{env, path::PathBuf};

const BRIDGE: [&str; 5] =
    ["bridge/bridge.cpp", "bridge/memory.cpp", "bridge/norm.cpp", "bridge/recompute.cpp", "bridge/bridge.h"];

fn main() {
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the folder of libtorch"));
    // torch-sys's own rpath reaches only its own targets.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    let include = match env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => PathBuf::from(folder).join("include"),
        None => lib.with_file_name("include"),
    };
    BRIDGE.iter().for_each(|file| println!("cargo:rerun-if-changed={file}"));
    cc::Build::new()
        .cpp(true)
        .files(BRIDGE.iter().filter(|file| file.ends_with(".cpp")))
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .std("c++17")
        .flag_if_supported("-fopenmp")
        // The vectors of norm.cpp are passed between its own inlined functions only.
        .flag_if_supported("-Wno-psabi")
        .opt_level(3)
        .warnings(false)
        .compile("caco_bridge");
    println!("cargo:rustc-link-lib=dylib=stdc++");
    // The OpenMP runtime that libtorch already uses: one soname, one library.
    println!("cargo:rustc-link-lib=dylib=gomp");
}
