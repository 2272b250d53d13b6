//! Compiles bindings to libtorch functions that tch lacks, and passes on the location of libtorch.

use std::{env, path::PathBuf};

const BRIDGE: [&str; 9] = [
    "bridge/bridge.cpp",
    "bridge/crew.cpp",
    "bridge/gpu.cpp",
    "bridge/layer.cpp",
    "bridge/memory.cpp",
    "bridge/nccl.cpp",
    "bridge/norm.cpp",
    "bridge/norm_shards.cpp",
    "bridge/recompute.cpp",
];

/// Compiled twice: with multiplications and additions fused where the machine can, and with each rounded.
const KERNELS: &str = "bridge/norm_kernels.cpp";

/// Compiled by itself: it alone sees the stand-ins for gloo's headers.
const TEAM: &str = "bridge/team.cpp";

fn main() {
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys sets the folder of libtorch"));
    // The rpath that torch-sys sets applies only to its own targets.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    let include = match env::var_os("LIBTORCH_INCLUDE") {
        Some(folder) => PathBuf::from(folder).join("include"),
        None => lib.with_file_name("include"),
    };
    println!("cargo:rerun-if-changed=bridge");
    let build = || {
        let mut build = cc::Build::new();
        build.cpp(true).include(&include).include(include.join("torch/csrc/api/include")).std("c++17");
        // The vectors of norm_kernels.cpp are passed only between its own inlined functions.
        build.flag_if_supported("-fopenmp").flag_if_supported("-Wno-psabi").opt_level(3).warnings(false);
        build
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets the folder of outputs"));
    let kernels = |name: &str, contraction: &str| {
        build()
            .file(KERNELS)
            .define("NORM_KERNELS", name)
            .flag(contraction)
            .out_dir(out.join(name))
            .compile(&format!("caco_norm_{name}"));
    };
    // Links go from the callers to the called.
    build().files(BRIDGE).flag("-ffp-contract=off").compile("caco_bridge");
    build().file(TEAM).include("bridge/gloo").define("USE_C10D_GLOO", None).compile("caco_team");
    kernels("fast", "-ffp-contract=fast");
    kernels("exact", "-ffp-contract=off");
    println!("cargo:rustc-link-lib=dylib=stdc++");
    // The OpenMP runtime that libtorch already uses: the same soname, so the same library.
    println!("cargo:rustc-link-lib=dylib=gomp");
}
