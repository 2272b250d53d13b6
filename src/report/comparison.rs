//! A comparison, as stored.

use super::{
    estimate::{Mean, Run, difference, estimate},
    verdict::{Effort, Verdict, needed},
};
use caco_measure::metric::Metric;
use serde::{Deserialize, Serialize};

/// A comparison of metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The line that the others are compared with.
    pub baseline: Option<String>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// The metrics of one encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its metrics.
    pub cells: Vec<Cell>,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
}

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The evaluation.
    pub evaluation: String,
    /// Name of the metric.
    pub metric: String,
    /// The measured value: the mean over the runs, with its interval over seeds and images. `None` if it was not run.
    pub measured: Option<Metric>,
    /// The values of the runs, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<f64>,
    /// The difference from the baseline on the same images, and its 95 % interval.
    pub difference: Option<(f64, (f64, f64))>,
    /// The published claim.
    pub claim: Option<Claim>,
}

/// A published metric to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The published value in per cent; `None` if unknown.
    pub per_cent: Option<f64>,
    /// The margin, in points of accuracy, within which a metric counts as reproduced.
    pub margin: f64,
    /// Where it was published.
    pub source: String,
    /// Whether it was taken from another text that quotes it.
    pub second_hand: bool,
    /// How the measured value compares.
    pub verdict: Verdict,
    /// The basis of the verdict, or what would decide it, or why there is none. May be empty.
    pub note: String,
}

/// A metric of one line: its runs, and how they are combined.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The evaluation.
    pub evaluation: String,
    /// The metric of each run, all with the same name.
    pub metrics: Vec<Metric>,
    /// The answers of each run.
    pub runs: Vec<Run>,
    /// How answers are averaged into the metric.
    pub mean: Mean,
}

impl Figure {
    /// Name of the metric.
    pub fn name(&self) -> &str {
        &self.metrics[0].name
    }

    /// The metric with its difference from the baseline and a claim (whose verdict is filled in here). `deviation` is
    /// the standard deviation between seeds assumed for a single run, as a fraction.
    pub fn cell(&self, baseline: Option<&Figure>, claim: Option<Claim>, deviation: f64) -> Cell {
        let first = &self.metrics[0];
        let single = first.interval.unwrap_or((first.value, first.value));
        let found = estimate(&self.runs, self.mean, single, deviation);
        let samples = first.samples.unwrap_or_default();
        let several = self.runs.len() > 1;
        let measured = Metric {
            value: if several { found.value } else { first.value },
            interval: Some(found.interval),
            samples: Some(samples),
            ..first.clone()
        };
        let comparable = |base: &&Figure| base.evaluation == self.evaluation && base.mean == self.mean;
        let difference =
            baseline.filter(comparable).and_then(|base| difference(&self.runs, &base.runs, self.mean, deviation));
        let effort =
            Effort { runs: self.runs.len() as u64, images: samples, between: found.between, within: found.within };
        let claim = claim.map(|claim| claim.judged(&measured, effort));
        let runs = if several { self.metrics.iter().map(|m| m.value).collect() } else { Vec::new() };
        Cell {
            evaluation: self.evaluation.clone(),
            metric: first.name.clone(),
            measured: Some(measured),
            runs,
            difference,
            claim,
        }
    }
}

impl Claim {
    /// Fills in the verdict on a metric, unless it is already known that there can be none.
    fn judged(self, measured: &Metric, effort: Effort) -> Claim {
        if self.verdict == Verdict::NotRun {
            return self;
        }
        let Some(per_cent) = self.per_cent else {
            return Claim { note: "there is no figure to hold it against".into(), ..self };
        };
        let (claimed, margin) = (per_cent / 100.0, self.margin / 100.0);
        let verdict = Verdict::of(claimed, measured.interval, margin);
        let mut notes = vec![format!("within ±{} points", self.margin)];
        if effort.runs == 1 {
            let assumed = 100.0 * effort.between.sqrt();
            notes.push(match assumed {
                0.0 => "one seed, taken as if others gave the same".into(),
                _ => format!("one seed, others assumed to deviate by {assumed:.2} points"),
            });
        }
        if verdict == Verdict::Undecided {
            notes.push(needed(claimed, measured.value, margin, effort));
        }
        Claim { verdict, note: notes.join("; "), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(rights: &[usize], images: &str) -> Figure {
        let run = |right: usize| Run {
            images: images.into(),
            labels: vec![0; 1000],
            right: (0..1000).map(|i| i < right).collect(),
            rankings: vec![],
        };
        Figure {
            evaluation: "linear".into(),
            metrics: rights.iter().map(|right| Metric::share("top1", "test", *right as u64, 1000)).collect(),
            runs: rights.iter().map(|right| run(*right)).collect(),
            mean: Mean::Images,
        }
    }

    fn claim(per_cent: f64, margin: f64) -> Claim {
        let verdict = Verdict::Undecided;
        Claim {
            per_cent: Some(per_cent),
            margin,
            source: "the paper".into(),
            second_hand: false,
            verdict,
            note: String::new(),
        }
    }

    #[test]
    fn a_single_run_is_shown_as_measured_and_judged_with_the_assumed_deviation() {
        let cell = figure(&[700], "a").cell(Some(&figure(&[500], "a")), Some(claim(71.3, 5.0)), 0.0);
        assert_eq!(cell.measured, Some(Metric::share("top1", "test", 700, 1000)));
        assert!(cell.runs.is_empty());
        let (value, (low, high)) = cell.difference.unwrap();
        assert!((value - 0.2).abs() < 1e-12 && low > 0.15 && high < 0.25);
        let judged = cell.claim.unwrap();
        assert_eq!(judged.verdict, Verdict::Reproduced);
        assert_eq!(judged.note, "within ±5 points; one seed, taken as if others gave the same");
        let wider = figure(&[700], "a").cell(None, Some(claim(71.3, 5.0)), 0.02).claim.unwrap();
        assert_eq!(wider.verdict, Verdict::Undecided);
        assert!(wider.note.contains("assumed to deviate by 2.00 points; about"), "{}", wider.note);
    }

    #[test]
    fn several_runs_give_their_mean_and_each_value() {
        let cell = figure(&[700, 720, 740], "a").cell(None, Some(claim(50.0, 1.0)), 0.0);
        assert_eq!(cell.runs, [0.7, 0.72, 0.74]);
        let measured = cell.measured.unwrap();
        assert!((measured.value - 0.72).abs() < 1e-12);
        // Three runs with a deviation of two points, including images: wider than 69.1 to 74.7 for one run.
        let (low, high) = measured.interval.unwrap();
        assert!(low < 0.69 && high > 0.75, "{low} {high}");
        let judged = cell.claim.unwrap();
        assert!(judged.verdict == Verdict::Exceeded && !judged.note.contains("seed"), "{}", judged.note);
    }

    #[test]
    fn other_images_or_evaluations_have_no_difference() {
        let ours = figure(&[700], "a");
        assert_eq!(ours.cell(Some(&figure(&[500], "b")), None, 0.0).difference, None);
        let other = Figure { evaluation: "knn".into(), ..figure(&[500], "a") };
        assert_eq!(ours.cell(Some(&other), None, 0.0).difference, None);
    }

    #[test]
    fn a_claim_without_a_value_is_not_judged() {
        let unknown = Claim { per_cent: None, ..claim(0.0, 1.0) };
        let shown = figure(&[700], "a").cell(None, Some(unknown), 0.0).claim.unwrap();
        assert_eq!(shown.verdict, Verdict::Undecided);
        assert!(shown.note.contains("no figure"));
    }

    #[test]
    fn a_claim_that_cannot_be_judged_keeps_its_reason() {
        let shown = Claim { verdict: Verdict::NotRun, note: "drawn images".into(), ..claim(71.3, 1.0) };
        assert_eq!(figure(&[700], "a").cell(None, Some(shown.clone()), 0.0).claim, Some(shown));
    }
}
