//! `caco`: a content-hashed DAG of stages, and the CaCo experiment as such a DAG. Modules in the order data flows.

#[cfg(feature = "torch")]
pub mod bridge;
#[cfg(feature = "torch")]
pub mod data;
#[cfg(feature = "torch")]
pub mod device;
pub mod engine;
#[cfg(feature = "torch")]
pub mod eval;
pub mod interval;
pub mod job;
pub mod metric;
#[cfg(feature = "torch")]
pub mod model;
pub mod report;
pub mod rng;
pub mod schedule;
pub mod score;
pub mod spec;
#[cfg(feature = "torch")]
pub mod stages;
#[cfg(feature = "torch")]
pub mod tensors;
#[cfg(feature = "torch")]
pub mod train;
