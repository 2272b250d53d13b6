#![doc = include_str!("../../docs/provenance.md")]

pub mod attester;
pub mod audit;
mod check;
pub mod citation;
pub mod croissant;
pub mod divergence;
pub mod envelope;
pub mod evidence;
pub mod figure;
mod figures;
mod images;
pub mod keyring;
pub mod locate;
pub mod rerun;
pub mod ro_crate;
pub mod source;
pub mod statement;
pub mod tolerance;
pub mod tree;
