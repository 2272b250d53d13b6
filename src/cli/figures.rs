//! A comparison as it is shown: each figure with the key of its result, and a mark that says whether that result and all it
//! was made from hold. The mark is not in the comparison's bytes.

use crate::registry::REGISTRY;
use anyhow::Result;
use caco_engine::{key::Key, store::Store};
use caco_provenance::{
    audit::{Auditor, State},
    figure::{self, Traced},
    keyring::{Keyring, Trust},
};
use serde::Serialize;

/// A figure with its mark.
#[derive(Serialize)]
pub struct Marked {
    #[serde(flatten)]
    pub figure: Traced,
    /// The worst that was found of its results and of all they were made from.
    pub audit: State,
}

/// Every figure of the comparison under a key. Files that the store knows unchanged are not read again.
pub fn marked(store: &Store, key: Key, trust: &Trust) -> Result<Vec<Marked>> {
    let table = figure::table(store, key)?;
    let mut auditor = Auditor::new(store, trust, &store.stat, &REGISTRY);
    auditor.key(key)?;
    let report = auditor.report()?;
    // What was read is remembered, so that the next look is quick; failing costs time only.
    let _ = store.stat.save();
    let of = |key: &Key| report.verdict(*key).unwrap_or(State::Fail);
    let own = report.nodes.iter().find(|node| node.key == Some(key)).map_or(State::Fail, |node| node.state());
    let mark = |figure: Traced| {
        let audit = figure.results.iter().map(of).max().unwrap_or(State::Fail).max(own);
        Marked { figure, audit }
    };
    Ok(table.figures.into_iter().map(mark).collect())
}

/// The table for a terminal. Where nothing can be traced, without marks and with the reason.
pub fn terminal(store: &Store, key: Key, comparison: &caco_report::comparison::Comparison) -> String {
    let trust = Keyring::locate().and_then(|ring| ring.trust_in());
    match trust.and_then(|trust| marked(store, key, &trust)) {
        Err(error) => format!("{}\n△ its figures cannot be traced: {error:#}", comparison.terminal()),
        Ok(figures) => {
            let cell = |figure: &Marked| {
                let keys = &figure.figure.results;
                let first = keys.first().map_or(String::new(), |key| key.0.short());
                let more = if keys.len() > 1 { format!(" +{}", keys.len() - 1) } else { String::new() };
                format!("{} {first}{more}", figure.audit.mark())
            };
            let mut cells = figures.iter().map(cell);
            let fails = figures.iter().filter(|figure| figure.audit == State::Fail).count();
            let table = comparison.terminal_beside("audit, result", &mut |measured| {
                if measured { cells.next().unwrap_or_default() } else { String::new() }
            });
            match fails {
                0 => table,
                n => format!("{table}\n✗ {n} figures do not hold: `caco audit` tells why"),
            }
        }
    }
}
