//! What a figure says about a published one.
//!
//! An equivalence test with a margin: the verdict reads off where the figure's 95 % interval lies. So each of these is
//! wrong with a chance of about 2.5 % at most: "reproduced" where the figure would in the long run be off by the margin or
//! more, "exceeded" where it would not be above it, "fell short" where it would not be below (Schuirmann 1987's two
//! one-sided tests, each at 2.5 %). The claim itself is taken as exact. Simulated with the figure in the long run exactly at the
//! upper end of the margin, 2,000 images, claim 70 %, margin 3 points, 20,000 repetitions: one run is called "reproduced" in
//! 2.6 % and "exceeded" in 2.7 %. `examples/coverage.rs` prints more.

use caco_measure::interval::Z;
use serde::{Deserialize, Serialize};

/// How a figure compares with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval lies within the margin.
    Reproduced,
    /// The whole interval lies above it.
    Exceeded,
    /// The whole interval lies below it.
    FellShort,
    /// The interval crosses an end of the margin.
    Undecided,
    /// There is no figure that the claim is about.
    NotRun,
}

impl Verdict {
    /// The verdict on an interval against a claim and a margin, all shares.
    pub fn of(claim: f64, interval: Option<(f64, f64)>, margin: f64) -> Verdict {
        match interval {
            Some((low, _)) if low > claim + margin => Verdict::Exceeded,
            Some((_, high)) if high < claim - margin => Verdict::FellShort,
            Some((low, high)) if low >= claim - margin && high <= claim + margin => Verdict::Reproduced,
            _ => Verdict::Undecided,
        }
    }

    /// As people read it.
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

/// What an undecided figure was measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Runs under different seeds.
    pub runs: u64,
    /// Images of each.
    pub images: u64,
    /// Variance between runs.
    pub between: f64,
    /// Variance that the figure has from its images.
    pub within: f64,
}

/// About how many more runs or images would decide, if the figure stayed where it is: the half-width of the interval
/// has to fall to the distance from the nearer end of the margin. All shares.
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

/// How many more than `have` bring `variance` / count down to `allowed`; nothing where none do, or absurdly many.
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
    fn verdicts_go_by_the_interval_and_the_margin() {
        let verdict = |low, high| Verdict::of(0.7, Some((low, high)), 0.02);
        assert_eq!(verdict(0.69, 0.71), Verdict::Reproduced);
        assert_eq!(verdict(0.73, 0.75), Verdict::Exceeded);
        assert_eq!(verdict(0.60, 0.67), Verdict::FellShort);
        assert_eq!(verdict(0.67, 0.71), Verdict::Undecided);
        assert_eq!(Verdict::of(0.7, None, 0.02), Verdict::Undecided);
    }

    #[test]
    fn wrong_verdicts_are_as_rare_as_said() {
        // In the long run exactly at the margin's upper end: neither reproduced nor exceeded.
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
    fn what_is_needed_decides() {
        let effort = Effort { runs: 3, images: 2000, between: 1e-4, within: 0.2 / 2000.0 };
        // 1.5 points from the claim with a margin of 0.5: the half-width has to fall to one point.
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
