//! What a signed statement about a result is made from. Who signs, and in what form, the engine does not know: it asks
//! once a result, and keeps the answer in the record.

use super::{listing::Content, publish::Finished, store::Pending};
use caco_pipeline::pipeline::{Pipeline, Stage};
use std::path::{Path, PathBuf};

/// A result that is about to be published.
#[derive(Debug)]
pub struct Made<'m> {
    /// The pipeline that asked for it.
    pub pipeline: &'m Pipeline,
    /// The stage that made it.
    pub stage: &'m Stage,
    /// How it went.
    pub finished: &'m Finished,
    /// What it left.
    pub result: &'m Pending,
    /// What it read outside the store, as it was when the stage ended.
    pub outside: &'m [(PathBuf, Content)],
}

/// Answers for results.
pub trait Attest: Sync {
    /// The text of `attestation.json`. Err: why there can be none; the result is not published then.
    fn attest(&self, made: &Made) -> Result<String, String>;
    /// Whether the record in this folder, of the same bytes as a result that was just made again, holds by itself. One that
    /// does not makes room for the new one.
    fn holds(&self, record: &Path) -> bool;
}
