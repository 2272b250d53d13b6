//! Tables and cards for people.

pub mod card;
pub mod chart;
pub mod comparison;
pub mod curves;
