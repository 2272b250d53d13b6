//! Thread pools of stages.

use anyhow::{Context as _, Result};

/// A thread pool with the number of threads allocated to the stage.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")
}
