//! Every metric that a pipeline's results hold, and which one a number or a name means.

use super::{name, stage};
use anyhow::{Context, Result, bail, ensure};
use caco_engine::{graph::Graph, key::Key, store::Store};
use caco_measure::metric::Metric;
use caco_pipeline::diagnostic::nearest;
use caco_provenance::figure;

/// A metric, and where it is.
#[derive(Debug)]
pub struct Found {
    /// Line, evaluation and metric of a comparison, or stage and metric.
    pub name: String,
    /// What was measured.
    pub measured: Metric,
    /// The results that it was measured in, one a run.
    pub results: Vec<Key>,
    /// The comparison that shows it.
    pub table: Option<Key>,
}

/// Every metric of the pipeline's comparisons, and every metric of its stages, of the results that it asks for as it
/// stands; with the notes of [`name::results`].
///
/// # Errors
/// Where a comparison is unsigned, or the store cannot be read.
pub fn all(graph: &Graph, store: &Store) -> Result<(Vec<Found>, Vec<String>)> {
    let results = name::results(graph, graph.order(), store)?;
    let mut found = vec![];
    for &id in graph.order() {
        let of = graph.stage(id);
        let Some(published) = results.found.get(&id) else { continue };
        if of.is_comparison {
            let table = figure::table(store, published.key).with_context(|| format!("stage '{}'", of.name))?;
            found.extend(table.figures.into_iter().map(|figure| Found {
                name: figure.name(),
                measured: figure.measured,
                results: figure.results,
                table: Some(published.key),
            }));
        }
        found.extend(stage::metrics(store, published)?.into_iter().map(|measured| Found {
            name: format!("{}/{}", of.name, measured.name),
            measured,
            results: vec![published.key],
            table: None,
        }));
    }
    Ok((found, results.notes))
}

/// The one that a text means: a name, or a number as it is printed (`37.3`, `37.3 %`, `0.373`). A metric of a comparison
/// goes before a stage's of the same number.
///
/// # Errors
/// Where none or several fit.
pub fn choose(what: &str, candidates: Vec<Found>) -> Result<Found> {
    let number = what.trim().trim_end_matches('%').trim();
    let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
    let is_number = number.parse::<f64>().is_ok();
    let fits = |candidate: &Found| {
        let value = candidate.measured.value;
        let printed = [format!("{:.digits$}", 100.0 * value), format!("{value:.digits$}")];
        if is_number { printed.iter().any(|printed| printed == number) } else { candidate.name == what }
    };
    let all: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    ensure!(!all.is_empty(), "nothing that the pipeline asks for has a result here; `caco plan` shows what would run");
    let (tables, metrics): (Vec<_>, Vec<_>) = candidates.into_iter().filter(fits).partition(|c| c.table.is_some());
    let mut found = if tables.is_empty() { metrics } else { tables };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let near = nearest(what, all.iter().map(String::as_str));
            let near =
                near.map_or_else(|| format!("there are {}", all.join(", ")), |near| format!("did you mean '{near}'?"));
            bail!("no metric matches '{what}'; {near}")
        }
        _ => {
            let names: Vec<&str> = found.iter().map(|candidate| candidate.name.as_str()).collect();
            bail!("'{what}' matches several metrics: {}; name one of them", names.join(", "))
        }
    }
}
