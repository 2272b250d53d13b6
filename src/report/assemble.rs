//! Assembles a comparison from the metrics and predictions of evaluations.

use super::{
    comparison::{Cell, Claim, Comparison, Figure, Line},
    estimate::{Mean, Run},
    verdict::Verdict,
};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Claim as Claimed, Compare, Row, Standing};
use caco_measure::{
    metric::{self, Metric},
    predictions::{self, Predictions},
};

use std::path::PathBuf;

/// Builds the comparison described by the parameters. `input` returns the path of the input in a slot.
pub fn compare(parameters: &Compare, input: Inputs) -> Result<Comparison> {
    let mut names: Vec<&str> = vec![];
    for row in &parameters.rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let reader = Reader { input, parameters };
    let baseline = match &parameters.baseline {
        Some(name) => reader.columns(name)?,
        None => vec![],
    };
    let lines = names.iter().map(|name| reader.line(name, &baseline)).collect::<Result<_>>()?;
    Ok(Comparison { baseline: parameters.baseline.clone(), lines })
}

/// One evaluation of one run.
struct Found {
    metrics: Vec<Metric>,
    predictions: Predictions,
}

/// The path of each input, by slot.
type Inputs<'a> = &'a dyn Fn(&str) -> Result<PathBuf>;

struct Reader<'a> {
    input: Inputs<'a>,
    parameters: &'a Compare,
}

impl Reader<'_> {
    /// The rows with this name, which are runs of the same experiment, with their numbers.
    fn runs(&self, name: &str) -> Vec<(usize, &Row)> {
        self.parameters.rows.iter().enumerate().filter(|(_, row)| row.name == name).collect()
    }

    fn line(&self, name: &str, baseline: &[Vec<Figure>]) -> Result<Line> {
        let rows = self.runs(name);
        let claims: Vec<&Claimed> = rows.iter().flat_map(|(_, row)| &row.claims).collect();
        if let Some(why) = rows.iter().find_map(|(_, row)| row.not_run.as_ref()) {
            let cells = claims.into_iter().map(|c| not_run(c, why)).collect();
            return Ok(Line { name: name.into(), cells, not_run: Some(why.clone()) });
        }
        let is_baseline = self.parameters.baseline.as_deref() == Some(name);
        let mut cells = vec![];
        for (j, figures) in self.columns(name)?.iter().enumerate() {
            let of = |claim: &Claimed| rows.iter().any(|(_, row)| row.results[j] == claim.of);
            let claims: Vec<&Claimed> = claims.iter().copied().filter(|claim| of(claim)).collect();
            check(&claims, figures)?;
            for figure in figures {
                let base = baseline.get(j).filter(|_| !is_baseline);
                let base = base.and_then(|figures| figures.iter().find(|f| f.name() == figure.name()));
                let claim = claims.iter().find(|c| c.metric == figure.name()).map(|c| self.claim(c));
                cells.push(figure.cell(base, claim, self.parameters.seed_deviation / 100.0));
            }
        }
        Ok(Line { name: name.into(), cells, not_run: None })
    }

    /// The claim, with its verdict still open unless there can be none.
    fn claim(&self, claim: &Claimed) -> Claim {
        match &self.parameters.stand_in {
            Some(why) => shown(claim, Verdict::NotRun, why),
            None => shown(claim, Verdict::Undecided, ""),
        }
    }

    /// The metrics of each column of a line.
    fn columns(&self, name: &str) -> Result<Vec<Vec<Figure>>> {
        let rows = self.runs(name);
        let width = rows.first().map_or(0, |(_, row)| row.results.len());
        (0..width).map(|j| self.column(&rows, j)).collect()
    }

    fn column(&self, rows: &[(usize, &Row)], j: usize) -> Result<Vec<Figure>> {
        let found = rows.iter().map(|(i, _)| self.found(*i, j)).collect::<Result<Vec<Found>>>()?;
        let stage = &rows[0].1.results[j];
        let first = &found[0].predictions;
        for (other, (_, row)) in found.iter().zip(rows) {
            let alike = other.predictions.evaluation == first.evaluation && other.predictions.figures == first.figures;
            ensure!(alike, "'{}' and '{stage}' are in the same column but are different evaluations", row.results[j]);
        }
        let named = self.parameters.columns.get(j).cloned();
        let evaluation = named.unwrap_or_else(|| first.evaluation.clone());
        let figure = |of: &predictions::Figure| figure(&evaluation, &found, *of);
        first.figures.iter().map(figure).collect::<Result<_>>().with_context(|| format!("'{stage}'"))
    }

    fn found(&self, i: usize, j: usize) -> Result<Found> {
        let path = (self.input)(&format!("{i}.{j}"))?;
        let metrics = metric::read(&path).with_context(|| format!("cannot read the metrics {}", path.display()))?;
        let predictions = Predictions::read(&(self.input)(&format!("{i}.{j}.predictions"))?)?;
        Ok(Found { metrics, predictions })
    }
}

/// Checks that each claim refers to one of the metrics.
fn check(claims: &[&Claimed], figures: &[Figure]) -> Result<()> {
    for claim in claims {
        let names: Vec<&str> = figures.iter().map(Figure::name).collect();
        let known = names.contains(&claim.metric.as_str());
        let Claimed { of, metric, .. } = claim;
        ensure!(known, "a claim refers to metric '{metric}' of '{of}', which measures only {}", names.join(", "));
    }
    Ok(())
}

/// A metric of the evaluations found, one per run.
fn figure(evaluation: &str, found: &[Found], of: predictions::Figure) -> Result<Figure> {
    let metric = |run: &Found| {
        let named = run.metrics.iter().find(|m| m.name == of.name() && m.split == run.predictions.split);
        named.cloned().with_context(|| format!("has no metric '{}' on {}", of.name(), run.predictions.split))
    };
    let run = |run: &Found| Run {
        images: run.predictions.images.clone().unwrap_or_default(),
        labels: run.predictions.labels(),
        right: run.predictions.right(of),
        rankings: run.predictions.rankings(),
    };
    let mean = match of {
        predictions::Figure::Top1 | predictions::Figure::Top5 => Mean::Images,
        predictions::Figure::MeanPerClass => Mean::Classes,
        predictions::Figure::Map11 => Mean::Ranks,
    };
    let metrics = found.iter().map(metric).collect::<Result<_>>()?;
    Ok(Figure { evaluation: evaluation.into(), metrics, runs: found.iter().map(run).collect(), mean })
}

fn shown(claim: &Claimed, verdict: Verdict, note: &str) -> Claim {
    Claim {
        per_cent: claim.value,
        margin: claim.margin,
        source: claim.source.clone(),
        second_hand: claim.standing == Standing::SecondHand,
        verdict,
        note: note.into(),
    }
}

fn not_run(claim: &Claimed, why: &str) -> Cell {
    Cell {
        evaluation: claim.of.clone(),
        metric: claim.metric.clone(),
        measured: None,
        runs: vec![],
        difference: None,
        claim: Some(shown(claim, Verdict::NotRun, why)),
    }
}
