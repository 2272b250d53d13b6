//! The real `caco`, run in folders of its own.

mod architecture;
mod cache;
mod caching;
mod code;
mod crash;
mod disk;
#[cfg(feature = "torch")]
mod evaluation;
#[cfg(feature = "torch")]
mod experiment;
mod explain;
mod isolation;
mod mistakes;
mod model;
#[cfg(feature = "torch")]
mod parity;
mod pipelines;
#[cfg(feature = "torch")]
mod pixels;
mod project;
#[cfg(feature = "torch")]
mod reference;
mod signals;
mod store;
mod sweep;
#[cfg(feature = "torch")]
mod training;
#[cfg(feature = "torch")]
mod weights;
