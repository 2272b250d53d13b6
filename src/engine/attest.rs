//! What a signed statement about a result is made from. The engine does not know who signs, or in what format: it asks
//! once per result, and keeps the attestation in the record.

use super::{publish::Finished, store::Pending};
use caco_pipeline::pipeline::{Pipeline, Stage};
use std::path::Path;

/// A result that is about to be published.
#[derive(Debug)]
pub struct Made<'m> {
    /// The pipeline that asked for it.
    pub pipeline: &'m Pipeline,
    /// The stage that produced it.
    pub stage: &'m Stage,
    /// How the stage ran.
    pub finished: &'m Finished,
    /// Its outputs.
    pub result: &'m Pending,
}

/// Attests results.
pub trait Attest: Sync {
    /// Returns the text of `attestation.json`. On an error, the result is not published.
    fn attest(&self, made: &Made) -> Result<String, String>;
    /// Whether the record in this folder is valid by itself. It has the same bytes as a result that was just computed
    /// again, and is replaced by the new record if it is not.
    fn holds(&self, record: &Path) -> bool;
}
