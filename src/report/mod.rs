//! Comparisons: what is in one, how sure its figures are, what they say of claims, and its forms for people.

pub mod comparison;
pub mod estimate;
mod forms;
pub mod verdict;
