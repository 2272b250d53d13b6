//! A comparison for a terminal, each metric with the key of its result and the mark of an audit.

use crate::registry::REGISTRY;
use caco_engine::{key::Key, store::Store};
use caco_inspect::comparison::{Marked, marked};
use caco_provenance::{audit::State, keyring::Keyring};

/// The table for a terminal. Where nothing can be traced, without marks and with the reason.
pub fn terminal(store: &Store, key: Key, comparison: &caco_report::comparison::Comparison) -> String {
    let trust = Keyring::locate().and_then(|ring| ring.trust_in());
    match trust.and_then(|trust| marked(store, key, &trust, &REGISTRY)) {
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
                n => format!("{table}\n✗ {n} figures do not hold: `caco audit` says why"),
            }
        }
    }
}
