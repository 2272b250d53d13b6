//! Comparisons (their contents, the uncertainty of their metrics, verdicts on claims, and output formats), cards of
//! exported weights, and curves of a training.

pub mod assemble;
pub mod card;
pub mod chart;
pub mod comparison;
pub mod curves;
pub mod difference;
pub mod estimate;
mod forms;
pub mod verdict;
