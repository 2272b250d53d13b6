//! Images: formats, decoding, augmentation, loading, synthesis. In the order of processing: [`format`] lists the files
//! of a data set, [`index`] examines them, [`dataset`] reads the index, [`reader`] reads a file, [`decode`] turns it
//! into a `Raster`, an `Augmenter` makes views of it (both are of `caco_views`), and [`loader`] collects them in batches.

pub mod batch;
pub mod bench;
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
pub mod reader;
pub mod sheet;
pub mod survey;
pub mod synth;

pub use caco_views::{Augmenter, Drawn, Raster};
pub use dataset::Dataset;
pub use loader::{Loader, Part, Reading, Transform, Turn};
