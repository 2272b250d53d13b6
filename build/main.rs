//! The build script: compiles what is not Rust (`native`), and embeds for each stage kind the digest of the code that
//! computes it (`code`, read off the source by `source`).

mod code;
#[cfg(feature = "data")]
mod native;
mod source;

fn main() {
    println!("cargo:rerun-if-changed=build");
    let root =
        std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder"));
    if let Err(error) = code::embed(&root) {
        println!("cargo::error={error}");
    }
    // torch-sys passes on the folder it linked against; its own rpath reaches only its own targets.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "torch")]
        native::bridge(std::path::Path::new(&lib));
    }
    #[cfg(feature = "data")]
    native::jpeg();
}
