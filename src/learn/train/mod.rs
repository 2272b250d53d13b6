//! Training: the methods, their steps, the optimizer, and the loop around them.

pub mod bench;
pub mod checkpoint;
pub mod collective;
pub mod compute;
pub mod contrast;
pub mod curve;
pub mod digests;
pub mod fit;
pub mod method;
pub mod methods;
pub mod momentum_contrast;
pub mod optimizer;
pub mod pace;
pub mod recipe;
pub mod replay;
pub mod trained;
pub mod trial;
