//! The real `caco`, run in folders of its own.

mod architecture;
mod cache;
mod caching;
mod code;
#[cfg(feature = "torch")]
mod experiment;
mod mistakes;
#[cfg(feature = "torch")]
mod parity;
mod project;
mod signals;
mod store;
#[cfg(feature = "torch")]
mod training;
#[cfg(feature = "torch")]
mod weights;
