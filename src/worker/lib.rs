//! Executes tensor stages: one file a stage kind, and what a stage is given to work with.

pub mod pulse;
pub mod stacks;
pub mod stages;
pub mod task;
pub mod watchdog;
