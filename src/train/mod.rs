//! Training: the step, its loss, its optimizer, and the loop around it.

pub mod caco;
pub mod contrast;
pub mod replay;
