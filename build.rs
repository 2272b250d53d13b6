//! Tells the linker where libtorch is at run time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys passes on the folder it linked against; its own rpath reaches only its own targets.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
