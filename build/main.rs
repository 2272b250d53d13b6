//! The build script: embeds for each stage kind the digest of the code that computes it (`code`, read off the source by
//! `source`).

mod code;
mod source;

fn main() {
    println!("cargo:rerun-if-changed=build");
    let root =
        std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder"));
    if let Err(error) = code::embed(&root) {
        println!("cargo::error={error}");
    }
}
