//! Tables for people.

pub mod table;
