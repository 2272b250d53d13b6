#![doc = include_str!("../../docs/provenance.md")]

pub mod attester;
pub mod audit;
mod check;
pub mod envelope;
pub mod evidence;
mod figures;
pub mod keyring;
pub mod source;
pub mod statement;
pub mod tree;
