//! Images: formats, decoding, augmentation, loading, synthesis.

pub mod batch;
