//! Images: formats, decoding, augmentation, loading, synthesis. In the order an image goes: [`index`] lists the files,
//! [`dataset`] reads the list, [`decode`] turns a file into a [`raster`], [`augment`] into views, [`loader`] collects
//! them in batches.

pub mod augment;
pub mod batch;
pub mod bench;
mod blur;
mod colour;
pub mod dataset;
pub mod decode;
pub mod index;
pub mod jpeg;
pub mod loader;
pub mod raster;
pub mod resample;
pub mod synth;
mod vectorise;

pub use dataset::Dataset;
pub use loader::{Loader, Reading, Transform};
