//! Comparisons (what is in one, how sure its figures are, what they say of claims, and its forms for people), cards of
//! exported weights, and curves of a training.

pub mod assemble;
pub mod card;
pub mod chart;
pub mod comparison;
pub mod curves;
pub mod estimate;
mod forms;
pub mod verdict;
