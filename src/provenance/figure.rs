//! Traces the figures of a comparison to the results that they were measured in. The comparison's own bytes contain no
//! keys: they depend only on the bytes of its inputs, which may be equal under another key. Its attestation has the
//! keys.

use super::{
    evidence::{Evidence, provenance},
    statement::Descriptor,
};
use anyhow::{Context, Result};
use caco_engine::{key::Key, store::Store};
use caco_kinds::Compare;
use caco_measure::{metric::Metric, predictions::Predictions};
use caco_report::comparison::Comparison;
use serde::Serialize;
use std::{fs, path::PathBuf};

/// A figure and its origin.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Traced {
    /// The line of the comparison.
    pub line: String,
    /// The evaluation.
    pub evaluation: String,
    /// The measurement.
    pub measured: Metric,
    /// The results that it was measured in, one per run.
    pub results: Vec<Key>,
}

impl Traced {
    /// Its name: line, evaluation, metric.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.line, self.evaluation, self.measured.name)
    }

    /// The value as shown in the table.
    pub fn per_cent(&self) -> String {
        format!("{:.1}", 100.0 * self.measured.value)
    }
}

/// A comparison with every figure traced.
pub struct Table {
    /// The comparison.
    pub comparison: Comparison,
    /// Its figures, in its order.
    pub figures: Vec<Traced>,
}

/// Reads the comparison of a key. An error if it is unsigned, or not a comparison.
pub fn table(store: &Store, key: Key) -> Result<Table> {
    let evidence = Evidence::of(store, key)?.with_context(|| format!("key {key} has no result"))?;
    let envelope = evidence.envelope()?.context("it is unsigned, so the results behind its figures are unknown")?;
    let definition = provenance(&envelope)?.predicate.build_definition;
    let parameters: Compare = serde_json::from_value(definition.external_parameters.parameters)?;
    let manifest = evidence.manifest()?;
    let json = manifest.outputs.iter().find(|o| &*o.name == "json").context("it has no output json")?;
    let path = store.object(json.blake3);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let comparison: Comparison = serde_json::from_str(&text).context("it is not a comparison")?;
    let inputs = Inputs { store, dependencies: &definition.resolved_dependencies };
    let mut figures = vec![];
    for line in comparison.lines.iter().filter(|line| line.not_run.is_none()) {
        let rows = parameters.rows.iter().enumerate().filter(|(_, row)| row.name == line.name);
        let rows: Vec<usize> = rows.map(|(i, _)| i).collect();
        let first = *rows.first().context("one of its lines is not one of its rows")?;
        // Cells are ordered by column, each with all the figures of its evaluation.
        let mut columns = vec![];
        for j in 0..parameters.rows[first].results.len() {
            let width = Predictions::read(&inputs.path(&format!("{first}.{j}.predictions"))?)?.figures.len();
            columns.extend(std::iter::repeat_n(j, width));
        }
        for (cell, j) in line.cells.iter().zip(columns) {
            let Some(measured) = &cell.measured else { continue };
            let results = rows.iter().map(|i| inputs.key(&format!("{i}.{j}"))).collect::<Result<_>>()?;
            let (line, evaluation) = (line.name.clone(), cell.evaluation.clone());
            figures.push(Traced { line, evaluation, measured: measured.clone(), results });
        }
    }
    Ok(Table { comparison, figures })
}

struct Inputs<'a> {
    store: &'a Store,
    dependencies: &'a [Descriptor],
}

impl Inputs<'_> {
    fn find(&self, slot: &str) -> Result<&Descriptor> {
        let found = self.dependencies.iter().find(|d| d.noted("slot") == Some(slot));
        found.with_context(|| format!("its statement does not name the source of {slot}"))
    }

    fn path(&self, slot: &str) -> Result<PathBuf> {
        let digest = self.find(slot)?.blake3().with_context(|| format!("{slot} has no digest"))?;
        Ok(self.store.object(digest))
    }

    fn key(&self, slot: &str) -> Result<Key> {
        let key = self.find(slot)?.noted("key").with_context(|| format!("{slot} is not a result"))?;
        key.parse().with_context(|| format!("{slot} has no valid key"))
    }
}
