//! RON text → plain data. No file but the pipeline file is read, and no tensor is known here.

pub mod code;
pub mod diagnostic;
pub mod job;
pub mod kind;
pub mod layers;
pub mod pipeline;
pub mod policy;
pub mod progress;
mod shape;
pub mod sweep;
pub mod tree;
