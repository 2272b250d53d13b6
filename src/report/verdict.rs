//! Compares a metric with a published claim.
//!
//! An equivalence test with a margin: the verdict follows from the position of the metric's 95 % interval. Each verdict
//! is wrong with a probability of at most about 2.5 %: "reproduced" if the expected metric is off by the margin or
//! more, "exceeded" if it is not above it, "fell short" if it is not below it (Schuirmann 1987's two one-sided tests,
//! each at 2.5 %). The claim itself is taken as exact. In a simulation with the expected metric exactly at the upper
//! end of the margin, 2,000 images, claim 70 %, margin 3 points, 20,000 repetitions: one run is called "reproduced" in
//! 2.6 % and "exceeded" in 2.7 %. `examples/coverage.rs` prints more.

use caco_measure::interval::Z;
use serde::{Deserialize, Serialize};

/// How a metric compares with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is within the margin.
    Reproduced,
    /// The whole interval is above the margin.
    Exceeded,
    /// The whole interval is below the margin.
    FellShort,
    /// The interval crosses an end of the margin.
    Undecided,
    /// The claimed metric was not measured.
    NotRun,
}

impl Verdict {
    /// The verdict on an interval, given a claim and a margin, all as fractions.
    pub fn of(claim: f64, interval: Option<(f64, f64)>, margin: f64) -> Verdict {
        match interval {
            Some((low, _)) if low > claim + margin => Verdict::Exceeded,
            Some((_, high)) if high < claim - margin => Verdict::FellShort,
            Some((low, high)) if low >= claim - margin && high <= claim + margin => Verdict::Reproduced,
            _ => Verdict::Undecided,
        }
    }

    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Reproduced => "reproduced",
            Verdict::Exceeded => "exceeded",
            Verdict::FellShort => "fell short",
            Verdict::Undecided => "undecided",
            Verdict::NotRun => "not run",
        }
    }
}

/// The runs and images of an undecided metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Runs with different seeds.
    pub runs: u64,
    /// Images per run.
    pub images: u64,
    /// Variance between runs.
    pub between: f64,
    /// Variance of the metric due to its images.
    pub within: f64,
}

/// Estimates how many more runs or images would decide if the metric stayed the same: the half-width of the interval
/// has to shrink to the distance from the nearer end of the margin. All as fractions.
pub fn needed(claim: f64, value: f64, margin: f64, effort: Effort) -> String {
    let Effort { runs, images, between, within } = effort;
    let allowed = (((value - claim).abs() - margin).abs() / Z).powi(2);
    // Variance is between/runs + within · images/images'.
    let more_runs = more(between, allowed - within, runs);
    let more_images = more(within * images as f64, allowed - between / runs as f64, images);
    match (more_runs, more_images) {
        (None, None) => "neither more seeds nor more images alone would decide".into(),
        (Some(runs), None) => format!("about {runs} more seeds would decide"),
        (None, Some(images)) => format!("about {images} more images would decide"),
        (Some(runs), Some(images)) => format!("about {runs} more seeds or {images} more images would decide"),
    }
}

/// How many more than `have` reduce `variance` / count to `allowed`; `None` if no number does, or only an absurdly
/// large one.
fn more(variance: f64, allowed: f64, have: u64) -> Option<u64> {
    const ABSURD: f64 = 1e8;
    let count = (variance / allowed).ceil();
    (allowed > 0.0 && variance > 0.0 && count < ABSURD).then(|| (count as u64).saturating_sub(have).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_measure::{interval::wilson, rng::Rng};

    #[test]
    fn verdicts_follow_from_the_interval_and_the_margin() {
        let verdict = |low, high| Verdict::of(0.7, Some((low, high)), 0.02);
        assert_eq!(verdict(0.69, 0.71), Verdict::Reproduced);
        assert_eq!(verdict(0.73, 0.75), Verdict::Exceeded);
        assert_eq!(verdict(0.60, 0.67), Verdict::FellShort);
        assert_eq!(verdict(0.67, 0.71), Verdict::Undecided);
        assert_eq!(Verdict::of(0.7, None, 0.02), Verdict::Undecided);
    }

    #[test]
    fn wrong_verdicts_are_as_rare_as_documented() {
        // The expected metric is exactly at the upper end of the margin: neither reproduced nor exceeded.
        let (trials, images, claim, margin) = (20_000, 2000, 0.7, 0.03);
        let verdict = |trial| {
            let mut rng = Rng::new(1, "verdict", 0, trial);
            let right = (0..images).filter(|_| rng.chance(claim + margin)).count() as u64;
            Verdict::of(claim, Some(wilson(right, images)), margin)
        };
        let verdicts: Vec<Verdict> = (0..trials).map(verdict).collect();
        let share = |of: Verdict| verdicts.iter().filter(|v| **v == of).count() as f64 / trials as f64;
        for verdict in [Verdict::Reproduced, Verdict::Exceeded] {
            assert!((0.02..=0.03).contains(&share(verdict)), "{verdict:?} {}", share(verdict));
        }
        assert_eq!(share(Verdict::FellShort), 0.0);
    }

    #[test]
    fn the_estimated_effort_decides() {
        let effort = Effort { runs: 3, images: 2000, between: 1e-4, within: 0.2 / 2000.0 };
        // 1.5 points from the claim with a margin of 0.5: the half-width has to shrink to one point.
        let allowed = (0.01 / Z).powi(2);
        let text = needed(0.70, 0.715, 0.005, effort);
        assert!(allowed < effort.within && allowed < effort.between / 3.0);
        assert_eq!(text, "neither more seeds nor more images alone would decide");
        let few = Effort { between: 0.0, ..effort };
        assert_eq!(
            needed(0.70, 0.715, 0.005, few),
            format!("about {} more images would decide", (0.2 / allowed).ceil() - 2000.0)
        );
        let exact = Effort { within: 0.0, ..effort };
        let runs = (1e-4 / allowed).ceil() - 3.0;
        assert_eq!(needed(0.70, 0.715, 0.005, exact), format!("about {runs} more seeds would decide"));
        assert!(needed(0.70, 0.70501, 0.005, effort).starts_with("neither"));
    }
}
