//! Threads for a stage.

use anyhow::{Context as _, Result};

/// A thread pool of the size that the stage was given.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")
}
