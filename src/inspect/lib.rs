//! The state of runs, plans, stages, sweeps and results as plain data. A command prints it for people; its `--json` is
//! exactly this, and its schema is in `docs/json.md`. Nothing here prints.

pub mod comparison;
pub mod curve;
pub mod diff;
pub mod expectation;
pub mod graph;
pub mod history;
pub mod metrics;
pub mod name;
pub mod outcome;
pub mod plan;
pub mod stage;
pub mod state;
pub mod store;
pub mod sweep;
pub mod why;
