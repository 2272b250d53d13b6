//! A content-hashed DAG of stages: it has never heard of tensors. Modules in the order of a run.

pub mod attest;
pub mod code;
pub mod command;
pub mod digest;
pub mod disk;
pub mod estimate;
pub mod event;
pub mod exec;
pub mod graph;
pub mod guard;
pub mod key;
pub mod listing;
pub mod names;
pub mod plan;
pub mod publish;
pub mod run;
pub mod signals;
pub mod spawn;
pub mod stat;
pub mod store;
pub mod why;
