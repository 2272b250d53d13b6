//! Images: formats, decoding, augmentation, loading, synthesis. In the order of processing: [`format`] lists the files
//! of a data set, [`index`] examines them, [`dataset`] reads the index, [`reader`] reads a file, [`decode`] turns it
//! into a [`raster`], [`augment`] makes views of it, and [`loader`] collects them in batches.

pub mod augment;
pub mod batch;
pub mod bench;
mod blur;
mod colour;
pub mod dataset;
pub mod decode;
pub mod format;
pub mod index;
pub mod jpeg;
pub mod loader;
pub mod mat;
pub mod memory;
pub mod pack;
pub mod pixels;
pub mod raster;
pub mod reader;
pub mod resample;
pub mod sheet;
pub mod survey;
pub mod synth;
mod vectorise;

pub use dataset::Dataset;
pub use loader::{Loader, Part, Reading, Transform};
