//! Tables for people.

pub mod comparison;
