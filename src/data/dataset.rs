//! A folder of images with its index: what a loader reads from.

use super::index::{Image, Index};
use anyhow::{Result, ensure};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Labelled images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Names of the classes; a label is a place in this list.
    pub classes: Vec<String>,
    /// The readable images in the order of the index. A sample number is a place in this list.
    pub images: Arc<[Image]>,
    /// The folder that the paths are relative to.
    pub root: PathBuf,
}

impl Dataset {
    /// Reads the file `index`, whose paths lie below the folder `images`. What is marked unreadable is left out.
    ///
    /// Errors: the index cannot be read, or nothing is left. The images themselves are not touched.
    pub fn open(index: &Path, images: &Path) -> Result<Dataset> {
        let Index { classes, images: listed } = Index::read(index)?;
        let readable: Arc<[Image]> = listed.into_iter().filter(|image| image.unreadable.is_none()).collect();
        ensure!(!readable.is_empty(), "{} lists no readable image", index.display());
        Ok(Dataset { classes, images: readable, root: images.to_path_buf() })
    }
}
