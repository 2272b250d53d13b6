//! Compiles bindings to libtorch functions that tch lacks, and passes on the location of libtorch.

use std::{env, path::PathBuf};

const BRIDGE: [&str; 6] = [
    "bridge/bridge.cpp",
    "bridge/gpu.cpp",
    "bridge/memory.cpp",
    "bridge/norm.cpp",
    "bridge/recompute.cpp",
    "bridge/bridge.h",
];

fn main() {
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys sets the folder of libtorch"));
    // The rpath that torch-sys sets applies only to its own targets.
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
        // The vectors of norm.cpp are passed only between its own inlined functions.
        .flag_if_supported("-Wno-psabi")
        .opt_level(3)
        .warnings(false)
        .compile("caco_bridge");
    println!("cargo:rustc-link-lib=dylib=stdc++");
    // The OpenMP runtime that libtorch already uses: the same soname, so the same library.
    println!("cargo:rustc-link-lib=dylib=gomp");
}
