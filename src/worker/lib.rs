//! Executes tensor stages: one file per stage kind, and the task that a stage receives.

pub mod member;
pub mod pulse;
pub mod stacks;
pub mod stages;
pub mod task;
pub mod team;
pub mod watchdog;
