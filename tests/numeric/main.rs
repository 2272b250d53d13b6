//! Numeric tests: recorded trajectories, references in other languages, pixels, and stages called as functions.

mod evaluation;
mod parity;
mod pixels;
mod reference;
mod team;
mod training;
mod views;
