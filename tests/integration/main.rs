//! The real `caco`, run in folders of its own.

mod architecture;
mod caching;
mod mistakes;
mod project;
mod signals;
mod store;
