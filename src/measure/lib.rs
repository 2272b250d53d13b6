//! What every other member counts with: random draws, metrics, intervals, scores, and predictions as files.

pub mod interval;
pub mod metric;
pub mod predictions;
pub mod rng;
pub mod score;
pub mod tensor_file;
