//! A content-hashed DAG of stages: it has never heard of tensors. Modules in the order of a run.

pub mod digest;
pub mod stat;
pub mod listing;
pub mod key;
pub mod graph;
// pub mod store;
// pub mod plan;
// pub mod why;
// pub mod exec;
// pub mod guard;
// pub mod run;
// pub mod history;
