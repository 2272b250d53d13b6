//! Training: the step, its loss, its optimizer, and the loop around it.

pub mod bench;
pub mod caco;
pub mod checkpoint;
pub mod contrast;
pub mod curve;
pub mod digests;
pub mod fit;
pub mod pace;
pub mod procedure;
pub mod replay;
pub mod trial;
