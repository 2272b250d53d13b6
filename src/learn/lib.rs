//! Networks, their training and their evaluation, on libtorch. Independent of stages, keys and caches.

pub mod bridge;
pub mod device;
pub mod eval;
pub mod model;
pub mod pth;
pub mod schedule;
pub mod tensors;
pub mod train;
