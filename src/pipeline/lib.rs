//! Parses RON text into plain data. Reads no file other than the pipeline file, and knows nothing of tensors.

pub mod code;
pub mod diagnostic;
pub mod job;
pub mod kind;
pub mod layers;
mod mismatch;
pub mod pipeline;
pub mod policy;
pub mod portable;
pub mod progress;
mod shape;
pub mod step_digests;
pub mod sweep;
pub mod tree;
