//! Networks and their tensors: the residual backbone, the head, an encoder as a file; and the bank.

pub mod bank;
pub mod convolution;
pub mod encoder;
mod head;
pub mod network;
pub mod pixels;
pub mod resnet;
pub mod shards;
pub mod weights;

pub use bank::Bank;
pub use encoder::Encoder;
pub use head::Sizes;
pub use network::{Network, Pass, Shape, unit};
pub use pixels::normalise;
pub use shards::Shards;
