//! The build script. For each stage kind it embeds the digest of the code that implements it: `code` writes it,
//! `source` parses the source.

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
