//! The stage kinds that this program knows, and the code behind each as the build script read it off the source.

use caco_pipeline::{
    code::{Code, Codebase},
    kind::Registry,
};
use std::sync::LazyLock;

include!(concat!(env!("OUT_DIR"), "/code.rs"));

/// All kinds.
pub static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::new(caco_kinds::all(), Codebase::new(KINDS, LOCK, include_str!("../Cargo.lock"))));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for entry in REGISTRY.kinds() {
            let code = REGISTRY.code.kinds().iter().find(|code| code.kind == entry.name);
            assert!(code.is_some_and(|c| c.parts.len() > 2), "{} has no code in build/code.rs", entry.name);
        }
    }
}
