//! The real `caco`, run in folders of its own.

mod architecture;
mod audit;
mod cache;
mod caching;
mod code;
mod crash;
mod data;
mod disk;
#[cfg(feature = "torch")]
mod evaluation;
#[cfg(feature = "torch")]
mod experiment;
mod explain;
#[cfg(feature = "torch")]
mod formats;
mod history;
mod isolation;
mod log;
mod mistakes;
mod model;
#[cfg(feature = "torch")]
mod parity;
mod pipelines;
#[cfg(feature = "torch")]
mod pixels;
mod process;
mod project;
mod provenance;
#[cfg(feature = "torch")]
mod reference;
mod signals;
mod stall;
mod store;
mod sweep;
mod terminal;
#[cfg(feature = "torch")]
mod training;
mod watching;
#[cfg(feature = "torch")]
mod weights;
