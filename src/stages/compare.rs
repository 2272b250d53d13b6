//! Kind `compare`: figures side by side.

use crate::{
    eval::predictions::{Figure, Predictions},
    interval::Pairs,
    job::Task,
    metric,
    report::comparison::{Cell, Claim, Comparison, Line, Verdict},
    spec::kind::{Compare, Row, Standing},
};
use anyhow::{Context as _, Result};
use std::fs;

/// Writes `comparison.json`, `.md`, `.csv` and `.tex`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: Compare = task.parameters()?;
    let baseline =
        parameters.baseline.as_ref().and_then(|name| parameters.rows.iter().position(|row| row.name == *name));
    let mut lines = vec![];
    for (i, row) in parameters.rows.iter().enumerate() {
        lines.push(line(task, i, row, baseline)?);
    }
    let comparison = Comparison { baseline: parameters.baseline, lines };
    for (name, text) in [
        ("comparison.json", serde_json::to_string_pretty(&comparison)? + "\n"),
        ("comparison.md", comparison.markdown()),
        ("comparison.csv", comparison.csv()),
        ("comparison.tex", comparison.latex()),
    ] {
        let path = task.output(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    task.metrics(&[])
}

fn line(task: &Task, i: usize, row: &Row, baseline: Option<usize>) -> Result<Line> {
    let mut cells = vec![];
    for (j, stage) in row.results.iter().enumerate() {
        let path = task.input(&format!("{i}.{j}"))?;
        let metrics = metric::read(path).with_context(|| format!("cannot read the metrics of '{stage}'"))?;
        let predictions = predictions(task, i, j)?;
        for figure in &predictions.figures {
            let found = metrics.iter().find(|m| m.name == figure.name() && m.split == predictions.split);
            let metric = found.with_context(|| format!("'{stage}' has no metric {}", figure.name()))?.clone();
            let difference = match baseline {
                Some(base) if base != i => difference(task, base, j, &predictions, *figure)?,
                _ => None,
            };
            let claimed = row.claims.iter().find(|c| c.of == *stage && c.metric == figure.name());
            let claim = claimed.map(|c| Claim {
                per_cent: c.value,
                source: c.source.clone(),
                second_hand: c.standing == Standing::SecondHand,
                verdict: Verdict::of(c.value / 100.0, metric.interval, c.margin / 100.0),
            });
            cells.push(Cell { evaluation: predictions.evaluation.clone(), metric, difference, claim });
        }
    }
    Ok(Line { name: row.name.clone(), cells })
}

fn predictions(task: &Task, i: usize, j: usize) -> Result<Predictions> {
    Predictions::read(task.input(&format!("{i}.{j}.predictions"))?)
}

/// Ours less the baseline's, where both answered the same images; with its 95 % interval.
fn difference(
    task: &Task,
    base: usize,
    j: usize,
    ours: &Predictions,
    figure: Figure,
) -> Result<Option<(f64, (f64, f64))>> {
    if !task.job.inputs.contains_key(&format!("{base}.{j}.predictions")) || figure == Figure::MeanPerClass {
        return Ok(None);
    }
    let theirs = predictions(task, base, j)?;
    let comparable =
        theirs.evaluation == ours.evaluation && theirs.images == ours.images && theirs.labels == ours.labels;
    if !comparable || !theirs.figures.contains(&figure) {
        return Ok(None);
    }
    let pairs = Pairs::count(&ours.right(figure), &theirs.right(figure));
    let n = ours.labels.len() as f64;
    Ok(Some(((pairs.first as f64 - pairs.second as f64) / n, pairs.difference())))
}
