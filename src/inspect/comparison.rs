//! A comparison's metrics with the results that they were computed from, and a mark that says whether those results and
//! all that they were made from hold. The mark is not in the comparison's bytes.

use anyhow::Result;
use caco_engine::{key::Key, store::Store};
use caco_pipeline::kind::Registry;
use caco_provenance::{
    audit::{Auditor, State},
    figure::{self, Traced},
    keyring::Trust,
};
use schemars::JsonSchema;
use serde::Serialize;

/// A metric of a comparison, traced and audited.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Marked {
    /// The metric and its results.
    #[serde(flatten)]
    pub figure: Traced,
    /// The worst that an audit found of its results and of all that they were made from.
    pub audit: State,
}

/// Every metric of the comparison under a key. Files that the store knows to be unchanged are not read again.
///
/// # Errors
/// Where the comparison is unsigned, or the store cannot be read.
pub fn marked(store: &Store, key: Key, trust: &Trust, registry: &Registry) -> Result<Vec<Marked>> {
    let table = figure::table(store, key)?;
    let mut auditor = Auditor::new(store, trust, &store.stat, registry);
    auditor.key(key)?;
    let report = auditor.report()?;
    // What was read is remembered, so that the next audit is quick; a failure costs time only.
    let _ = store.stat.save();
    let of = |key: &Key| report.verdict(*key).unwrap_or(State::Fail);
    let own = report.nodes.iter().find(|node| node.key == Some(key)).map_or(State::Fail, |node| node.state());
    let mark = |figure: Traced| {
        let audit = figure.results.iter().map(of).max().unwrap_or(State::Fail).max(own);
        Marked { figure, audit }
    };
    Ok(table.figures.into_iter().map(mark).collect())
}
