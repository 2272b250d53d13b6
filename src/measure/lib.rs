//! Numerical basics shared by the other crates: random numbers, metrics, intervals, scores, and prediction files.

pub mod interval;
pub mod metric;
pub mod number;
pub mod predictions;
pub mod rng;
pub mod score;
pub mod tensor_file;
