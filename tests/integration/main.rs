//! The real `caco`, run in folders of its own.

mod architecture;
mod cache;
mod caching;
mod code;
#[cfg(feature = "torch")]
mod evaluation;
#[cfg(feature = "torch")]
mod experiment;
mod mistakes;
#[cfg(feature = "torch")]
mod parity;
mod project;
#[cfg(feature = "torch")]
mod reference;
mod signals;
mod store;
