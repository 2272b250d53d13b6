//! Simulates how often the intervals contain the true value, and how often verdicts are wrong: the numbers in
//! docs/evaluation.md.
//!
//!     cargo run --release --example coverage
//!
//! All draws are seeded: the numbers are the same on every machine.

use caco_measure::{
    interval::{bootstrap, wilson},
    rng::Rng,
    score,
};
use caco_report::{
    estimate::{Mean, Run, difference, estimate},
    verdict::Verdict,
};
use rayon::prelude::*;

fn main() {
    println!("| interval | drawn | repetitions | holds the truth |\n| --- | --- | --- | --- |");
    for (n, p) in [(1000, 0.03), (1000, 0.5), (1000, 0.9), (4000, 0.71)] {
        let share = covered(30_000, p, |rng| wilson(drawn(rng, n, p), n));
        row("Wilson", &format!("{n} images, {:.0} % right", 100.0 * p), 30_000, share);
    }
    let share = covered(2000, truth_per_class(), per_class);
    row("bootstrap, mean over classes", "1000 images of 10 classes, 32 to 95 % right", 2000, share);
    let truth = precision(1, 2_000_000).1;
    let share = covered(1000, truth, |rng| {
        let (rankings, _) = ranked(rng, 1000);
        bootstrap(1000, 0, |counts| score::mean_average_precision(&rankings, Some(counts)))
    });
    row("bootstrap, 11-point mAP", &format!("1000 images, 2 classes, mAP {:.1} %", 100.0 * truth), 1000, share);
    for (runs, seeds) in [(3, 0.02), (3, 0.2), (5, 0.08)] {
        let share = covered(4000, truth_of_runs(0.8, seeds), |rng| {
            let images = hardness(rng);
            estimate(&runs_on(rng, runs, &images, 0.8, seeds), Mean::Images, (0.0, 1.0), 0.0).interval
        });
        let spread = 100.0 * (truth_of_runs(0.8 + seeds, seeds) - truth_of_runs(0.8, seeds));
        row(
            "over seeds and images",
            &format!("{runs} seeds deviating by {spread:.1} points, 1000 images"),
            4000,
            share,
        );
    }
    for (ones, twos) in [(3, 3), (5, 3)] {
        let share = covered(4000, truth_of_runs(0.8, 0.1) - truth_of_runs(0.5, 0.1), |rng| {
            let images = hardness(rng);
            let (first, second) = (runs_on(rng, ones, &images, 0.8, 0.1), runs_on(rng, twos, &images, 0.5, 0.1));
            difference(&first, &second, Mean::Images, 0.0).expect("the images are the same").1
        });
        row("difference over seeds and images", &format!("{ones} and {twos} seeds, 1000 images"), 4000, share);
    }
    verdicts();
}

fn row(interval: &str, drawn: &str, trials: u64, share: f64) {
    println!("| {interval} | {drawn} | {trials} | {:.1} % |", 100.0 * share);
}

/// Fraction of repetitions in which the interval contains the true value.
fn covered(trials: u64, truth: f64, interval: impl Fn(&mut Rng) -> (f64, f64) + Sync) -> f64 {
    let holds = |trial: &u64| {
        let (low, high) = interval(&mut Rng::new(5, "coverage", 0, *trial));
        low <= truth && truth <= high
    };
    (0..trials).into_par_iter().filter(holds).count() as f64 / trials as f64
}

fn drawn(rng: &mut Rng, n: u64, p: f64) -> u64 {
    (0..n).filter(|_| rng.chance(p)).count() as u64
}

fn class_share(class: i64) -> f64 {
    0.32 + 0.07 * class as f64
}

fn truth_per_class() -> f64 {
    (0..10).map(class_share).sum::<f64>() / 10.0
}

fn per_class(rng: &mut Rng) -> (f64, f64) {
    let labels: Vec<i64> = (0..1000).map(|_| rng.below(10) as i64).collect();
    let right: Vec<bool> = labels.iter().map(|&label| rng.chance(class_share(label))).collect();
    bootstrap(1000, 0, |counts| score::mean_per_class(&labels, &right, 10, Some(counts)))
}

/// `n` images, each of which shows each of two classes with a probability of 30 and 10 %, ranked by noisy scores.
fn ranked(rng: &mut Rng, n: usize) -> (Vec<score::Ranking>, f64) {
    let shown: Vec<bool> = (0..2 * n).map(|i| rng.chance(if i % 2 == 0 { 0.3 } else { 0.1 })).collect();
    let scores: Vec<f64> = shown.iter().map(|&there| f64::from(u8::from(there)) * 1.5 + rng.normal()).collect();
    let rankings = score::rankings(&scores, &shown, 2);
    let mean = score::mean_average_precision(&rankings, None);
    (rankings, mean)
}

fn precision(seed: u64, n: usize) -> (Vec<score::Ranking>, f64) {
    ranked(&mut Rng::new(seed, "population", 0, 0), n)
}

fn hardness(rng: &mut Rng) -> Vec<f64> {
    (0..1000).map(|_| rng.normal()).collect()
}

/// Whether an answer is correct depends on the image, on the run, and on both.
fn runs_on(rng: &mut Rng, runs: usize, images: &[f64], level: f64, seeds: f64) -> Vec<Run> {
    let labels = vec![0; images.len()];
    let mut run = || {
        let level = level + seeds * rng.normal();
        let right = images.iter().map(|image| level + image + 0.4 * rng.normal() > 0.0).collect();
        Run { images: "same".into(), labels: labels.clone(), right, rankings: vec![] }
    };
    (0..runs).map(|_| run()).collect()
}

/// The expected metric, P(level + N(0, 1) + 0.4 N(0, 1) + seeds N(0, 1) > 0): Φ by Simpson's rule.
fn truth_of_runs(level: f64, seeds: f64) -> f64 {
    let z = level / (1.16 + seeds * seeds).sqrt();
    let steps = 2000;
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let weight = |i: i32| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    let sum: f64 = (0..=steps).map(|i| weight(i) * density(z * f64::from(i) / f64::from(steps))).sum();
    0.5 + z / f64::from(steps) / 3.0 * sum
}

/// Verdicts if the expected metric is exactly at the upper end of the margin, and if it equals the claim.
fn verdicts() {
    println!("\n| runs | margin | in the long run | reproduced | exceeded | fell short | undecided |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for runs in [1, 3] {
        for margin in [0.03, 0.06] {
            for (at, words) in
                [(margin, "at the margin's upper end: neither is right"), (0.0, "the claim: reproduced is right")]
            {
                let trials = 6000u64;
                let verdict = |trial| verdict(&mut Rng::new(6, "verdict", 0, trial), runs, margin, at);
                let found: Vec<Verdict> = (0..trials).into_par_iter().map(verdict).collect();
                let share = |of: Verdict| 100.0 * found.iter().filter(|v| **v == of).count() as f64 / trials as f64;
                let [a, b, c, d] =
                    [Verdict::Reproduced, Verdict::Exceeded, Verdict::FellShort, Verdict::Undecided].map(share);
                println!("| {runs} | ± {:.0} | {words} | {a:.1} % | {b:.1} % | {c:.1} % | {d:.1} % |", 100.0 * margin);
            }
        }
    }
}

/// The verdict on runs of 2,000 images whose expected metric is the claim plus `at`; several runs deviate by a point.
fn verdict(rng: &mut Rng, runs: u64, margin: f64, at: f64) -> Verdict {
    const CLAIM: f64 = 0.7;
    let run = |rng: &mut Rng| {
        let share = CLAIM + at + if runs > 1 { 0.01 * rng.normal() } else { 0.0 };
        let right = (0..2000).map(|_| rng.chance(share)).collect::<Vec<bool>>();
        Run { images: "same".into(), labels: vec![0; 2000], right, rankings: vec![] }
    };
    let found: Vec<Run> = (0..runs).map(|_| run(rng)).collect();
    let right = found[0].right.iter().filter(|right| **right).count() as u64;
    let interval = estimate(&found, Mean::Images, wilson(right, 2000), 0.0).interval;
    Verdict::of(CLAIM, Some(interval), margin)
}
