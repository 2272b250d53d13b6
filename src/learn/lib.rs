//! Networks, their training and their evaluation, on libtorch. Independent of stages, keys and caches.

pub mod bridge;
pub mod cuda;
pub mod device;
pub mod driver;
pub mod eval;
pub mod gpus;
pub mod model;
pub mod out_of_memory;
mod panic_message;
pub mod portable;
pub mod pth;
pub mod schedule;
pub mod tensors;
pub mod train;
pub mod transfer;
