//! A metric over several runs of the same experiment under different seeds, and the difference of two such metrics,
//! each with a 95 % interval that covers other seeds *and* other images.
//!
//! Runs on the same images are a crossed design: if the metric is the mean over runs and images, its variance is
//! σ²(seeds)/S + σ²(images)/n + σ²(seeds × images)/(S·n) for S runs on n images. The variance between runs, divided by
//! S, contains the first and the third term; the variance between the means of images, divided by n, the second and the
//! third; so the third is subtracted once (a two-way analysis of variance with random effects; Searle, Casella,
//! McCulloch 1992, chapter 4). Seeds are few and images many: each has its own quantile of Student's t, and the two
//! half-widths are added in quadrature, so that a seed variance that is small by chance does not make the interval too
//! short. In simulations of 3 and 5 runs on 1,000 images it covers 95.7 to 97.7 %.

use caco_measure::{
    interval::{Pairs, Z, bootstrap, student},
    score::{self, Ranking},
};

/// The answers of one run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Identifies the images: equal strings mean the same images in the same order.
    pub images: String,
    /// The class of each image; if it can show several, image by image 1 for each class shown and 0 for the others.
    pub labels: Vec<i64>,
    /// Whether each image was answered correctly. Empty for rankings.
    pub right: Vec<bool>,
    /// The images ranked by each class. Only for rankings.
    pub rankings: Vec<Ranking>,
}

/// How answers are averaged into a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mean {
    /// Over images.
    Images,
    /// Over classes of the mean over their images.
    Classes,
    /// Over classes of the average precision of their ranking: not a mean of single answers, so it is resampled.
    Ranks,
}

/// A metric, and the sources of its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean over the runs.
    pub value: f64,
    /// 95 % interval.
    pub interval: (f64, f64),
    /// Variance between runs; for a single run the assumed one.
    pub between: f64,
    /// Variance of the value due to the images.
    pub within: f64,
}

impl Run {
    fn figure(&self, mean: Mean) -> f64 {
        match mean {
            Mean::Images => self.right.iter().filter(|r| **r).count() as f64 / self.right.len().max(1) as f64,
            Mean::Classes | Mean::Ranks => self.resampled(mean, None),
        }
    }

    /// A mean over classes, with each image weighted by `counts`.
    fn resampled(&self, mean: Mean, counts: Option<&[u32]>) -> f64 {
        match mean {
            Mean::Ranks => score::mean_average_precision(&self.rankings, counts),
            _ => score::mean_per_class(&self.labels, &self.right, self.classes(), counts),
        }
    }

    fn images(&self) -> usize {
        self.labels.len() / self.rankings.len().max(1)
    }

    fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |most| *most as usize + 1)
    }

    /// Image numbers grouped by what is averaged first.
    fn groups(&self, mean: Mean) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); if mean == Mean::Classes { self.classes() } else { 1 }];
        for (image, &label) in self.labels.iter().enumerate() {
            groups[if mean == Mean::Classes { label as usize } else { 0 }].push(image);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }
}

/// The metric of `runs` (at least one). `single` is the interval of a single run over its images; if there is only one
/// run, other seeds are assumed to deviate from it by the standard deviation `assumed`.
pub fn estimate(runs: &[Run], mean: Mean, single: (f64, f64), assumed: f64) -> Estimate {
    let figures: Vec<f64> = runs.iter().map(|run| run.figure(mean)).collect();
    let value = average(&figures);
    if runs.len() == 1 {
        let (low, high) = widened(value, single, assumed);
        let within = ((single.1 - single.0) / (2.0 * Z)).powi(2);
        return Estimate { value, interval: bounded(low, high, 0.0), between: assumed * assumed, within };
    }
    let seeds = Part::of_runs(&figures);
    // For runs on different images, all variance is between runs.
    let (images, shared) = match mean {
        _ if !alike(runs) => (Part::NONE, 0.0),
        Mean::Ranks => (Part::resampled(runs, &[]), 0.0),
        _ => (Part::of_images(&means(runs), runs, mean), interaction(runs, mean)),
    };
    let half = half_width(seeds, images, shared);
    let between = seeds.variance * runs.len() as f64;
    Estimate { value, interval: bounded(value - half, value + half, 0.0), between, within: images.variance }
}

/// The first metric minus the second with its 95 % interval; `None` if they are not on the same images. Two single runs
/// are compared image by image (Newcombe's paired interval, or a paired bootstrap for means over classes).
pub fn difference(first: &[Run], second: &[Run], mean: Mean, assumed: f64) -> Option<(f64, (f64, f64))> {
    let figures = |runs: &[Run]| -> Vec<f64> { runs.iter().map(|run| run.figure(mean)).collect() };
    let (ones, twos) = (figures(first), figures(second));
    let value = average(&ones) - average(&twos);
    if !(alike(first) && alike(second) && same_images(&first[0], &second[0])) {
        return by_run(first, second, &ones, &twos);
    }
    if let ([a], [b]) = (first, second) {
        // Both runs could have had other seeds.
        let (low, high) = widened(value, paired(a, b, mean), assumed * std::f64::consts::SQRT_2);
        return Some((value, bounded(low, high, -1.0)));
    }
    let seeds = |figures: &[f64]| match figures.len() {
        1 => Part { variance: assumed * assumed, freedom: f64::INFINITY },
        _ => Part::of_runs(figures),
    };
    let (images, shared) = match mean {
        Mean::Ranks => (Part::resampled(first, second), 0.0),
        _ => {
            let apart: Vec<f64> = means(first).iter().zip(means(second)).map(|(a, b)| a - b).collect();
            (Part::of_images(&apart, first, mean), interaction(first, mean) + interaction(second, mean))
        }
    };
    let half = half_width(seeds(&ones).and(seeds(&twos)), images, shared);
    Some((value, bounded(value - half, value + half, -1.0)))
}

/// For runs whose images differ between pairs, but are the same within each pair.
fn by_run(first: &[Run], second: &[Run], ones: &[f64], twos: &[f64]) -> Option<(f64, (f64, f64))> {
    let paired = first.len() > 1 && first.len() == second.len();
    if !paired || !first.iter().zip(second).all(|(a, b)| same_images(a, b)) {
        return None;
    }
    let apart: Vec<f64> = ones.iter().zip(twos).map(|(a, b)| a - b).collect();
    let half = half_width(Part::of_runs(&apart), Part::NONE, 0.0);
    let value = average(&apart);
    Some((value, bounded(value - half, value + half, -1.0)))
}

/// Interval over images of the difference of two single runs.
fn paired(a: &Run, b: &Run, mean: Mean) -> (f64, f64) {
    match mean {
        Mean::Images => Pairs::count(&a.right, &b.right).difference(),
        Mean::Classes | Mean::Ranks => {
            bootstrap(a.images(), 0, |counts| a.resampled(mean, Some(counts)) - b.resampled(mean, Some(counts)))
        }
    }
}

/// A component of a variance, with its degrees of freedom.
#[derive(Clone, Copy, Debug)]
struct Part {
    variance: f64,
    freedom: f64,
}

impl Part {
    const NONE: Part = Part { variance: 0.0, freedom: f64::INFINITY };

    /// Variance of the mean over runs.
    fn of_runs(figures: &[f64]) -> Part {
        let n = figures.len() as f64;
        Part { variance: variance(figures) / n, freedom: n - 1.0 }
    }

    /// Variance of the difference of two independent means (Welch 1947).
    fn and(self, other: Part) -> Part {
        let variance = self.variance + other.variance;
        let squares = self.variance.powi(2) / self.freedom + other.variance.powi(2) / other.freedom;
        Part { variance, freedom: if squares > 0.0 { variance * variance / squares } else { f64::INFINITY } }
    }

    /// Variance over images of the mean metric of rankings, minus that of others on the same images. It includes the
    /// interaction of seeds and images, which is not separated here: the interval is slightly too wide rather than too
    /// short.
    fn resampled(runs: &[Run], others: &[Run]) -> Part {
        let (low, high) = bootstrap(runs[0].images(), 0, |counts| {
            let mean = |runs: &[Run]| {
                runs.iter().map(|run| run.resampled(Mean::Ranks, Some(counts))).sum::<f64>() / runs.len().max(1) as f64
            };
            mean(runs) - mean(others)
        });
        Part { variance: ((high - low) / (2.0 * Z)).powi(2), freedom: f64::INFINITY }
    }

    /// Variance of the mean of one value per image.
    fn of_images(values: &[f64], runs: &[Run], mean: Mean) -> Part {
        let groups = runs[0].groups(mean);
        let of_group = |group: &Vec<usize>| {
            let values: Vec<f64> = group.iter().map(|&image| values[image]).collect();
            variance(&values) / values.len() as f64
        };
        let share = (groups.len() as f64).powi(2);
        let freedom = (values.len() - groups.len()).max(1) as f64;
        Part { variance: groups.iter().map(of_group).sum::<f64>() / share, freedom }
    }
}

/// Half the 95 % interval of a mean that varies with seeds and images; both parts include `shared`.
fn half_width(seeds: Part, images: Part, shared: f64) -> f64 {
    let images = Part { variance: (images.variance - shared).max(0.0), ..images };
    let half = |part: Part| if part.variance > 0.0 { student(part.freedom) * part.variance.sqrt() } else { 0.0 };
    half(seeds).hypot(half(images))
}

/// Variance of the mean due to the interaction of seeds and images: the residual of each answer after removing the
/// effects of its run and its image.
fn interaction(runs: &[Run], mean: Mean) -> f64 {
    let s = runs.len() as f64;
    if runs.len() < 2 {
        return 0.0;
    }
    let images = means(runs);
    let groups = runs[0].groups(mean);
    let of_group = |group: &Vec<usize>| {
        let n = group.len() as f64;
        if group.len() < 2 {
            return 0.0;
        }
        let centre = group.iter().map(|&i| images[i]).sum::<f64>() / n;
        let squares = runs.iter().map(|run| {
            let answer = |i: usize| f64::from(u8::from(run.right[i]));
            let own = group.iter().map(|&i| answer(i)).sum::<f64>() / n;
            group.iter().map(|&i| (answer(i) - images[i] - own + centre).powi(2)).sum::<f64>()
        });
        squares.sum::<f64>() / ((s - 1.0) * (n - 1.0)) / (s * n)
    };
    groups.iter().map(of_group).sum::<f64>() / (groups.len() as f64).powi(2)
}

/// The mean answer of each image.
fn means(runs: &[Run]) -> Vec<f64> {
    let share = 1.0 / runs.len() as f64;
    let mean = |image: usize| runs.iter().filter(|run| run.right[image]).count() as f64 * share;
    (0..runs[0].right.len()).map(mean).collect()
}

fn same_images(a: &Run, b: &Run) -> bool {
    a.images == b.images && a.labels == b.labels
}

fn alike(runs: &[Run]) -> bool {
    runs.iter().all(|run| same_images(run, &runs[0]))
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample variance; 0 for a single value.
fn variance(values: &[f64]) -> f64 {
    let centre = average(values);
    values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64
}

/// An interval around `value`, widened by an independent deviation.
fn widened(value: f64, (low, high): (f64, f64), deviation: f64) -> (f64, f64) {
    let side = |length: f64| length.hypot(Z * deviation);
    (value - side(value - low), value + side(high - value))
}

fn bounded(low: f64, high: f64, least: f64) -> (f64, f64) {
    (low.max(least), high.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_measure::{interval::wilson, rng::Rng};

    const CLASSES: i64 = 10;

    /// Runs on `n` images: whether an answer is correct depends on the image, on the run, and on both.
    fn drawn(rng: &mut Rng, runs: usize, images: &[f64], level: f64, seeds: f64) -> Vec<Run> {
        let labels: Vec<i64> = (0..images.len() as i64).map(|i| i % CLASSES).collect();
        let mut run = || {
            let level = level + seeds * rng.normal();
            let right = images.iter().map(|image| level + image + 0.4 * rng.normal() > 0.0).collect();
            Run { images: "same".into(), labels: labels.clone(), right, rankings: vec![] }
        };
        (0..runs).map(|_| run()).collect()
    }

    fn hardness(rng: &mut Rng, n: usize) -> Vec<f64> {
        (0..n).map(|_| rng.normal()).collect()
    }

    /// The expected metric: P(level + N(0, 1) + 0.4 N(0, 1) + seeds N(0, 1) > 0).
    fn truth(level: f64, seeds: f64) -> f64 {
        let z = level / (1.16 + seeds * seeds).sqrt();
        // Φ by numerical integration with Simpson's rule.
        let steps = 2000;
        let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let weight = |i: i32| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        let sum: f64 = (0..=steps).map(|i| weight(i) * density(z * f64::from(i) / f64::from(steps))).sum();
        0.5 + z / f64::from(steps) / 3.0 * sum
    }

    fn covered(trials: u64, truth: f64, mut interval: impl FnMut(&mut Rng) -> (f64, f64)) -> f64 {
        let holds = |trial: &u64| {
            let (low, high) = interval(&mut Rng::new(5, "estimate", 0, *trial));
            (low..=high).contains(&truth)
        };
        (0..trials).filter(holds).count() as f64 / trials as f64
    }

    #[test]
    fn intervals_over_runs_cover_other_seeds_and_other_images() {
        for (runs, seeds) in [(3, 0.02), (3, 0.2), (5, 0.08)] {
            for mean in [Mean::Images, Mean::Classes] {
                let share = covered(1500, truth(0.8, seeds), |rng| {
                    let images = hardness(rng, 1000);
                    estimate(&drawn(rng, runs, &images, 0.8, seeds), mean, (0.0, 1.0), 0.0).interval
                });
                assert!((0.93..=0.99).contains(&share), "{runs} runs, {seeds}, {mean:?}: {share}");
            }
        }
    }

    #[test]
    fn differences_over_runs_cover_other_seeds_and_other_images() {
        for (ones, twos) in [(3, 3), (3, 1), (5, 3)] {
            // A single run has no deviation between seeds here, as assumed for it.
            let (seeds, base) = (0.1, if twos == 1 { 0.0 } else { 0.1 });
            let truth = truth(0.8, seeds) - truth(0.5, base);
            let share = covered(1500, truth, |rng| {
                let images = hardness(rng, 1000);
                let first = drawn(rng, ones, &images, 0.8, seeds);
                let second = drawn(rng, twos, &images, 0.5, base);
                difference(&first, &second, Mean::Images, 0.0).unwrap().1
            });
            assert!((0.93..=0.99).contains(&share), "{ones} and {twos} runs: {share}");
        }
    }

    #[test]
    fn the_bootstrap_has_its_nominal_coverage_for_a_mean_over_classes() {
        let share = covered(500, truth(0.8, 0.0), |rng| {
            let images = hardness(rng, 1000);
            let run = &drawn(rng, 1, &images, 0.8, 0.0)[0];
            bootstrap(1000, 0, |counts| score::mean_per_class(&run.labels, &run.right, 10, Some(counts)))
        });
        assert!((0.93..=0.97).contains(&share), "{share}");
    }

    /// Runs that rank 300 images for two classes, with noise in the scores.
    fn ranked(rng: &mut Rng, runs: usize, noise: f64) -> Vec<Run> {
        let mut images = Rng::new(9, "ranked", 0, 0);
        let shown: Vec<bool> = (0..600).map(|_| images.chance(0.3)).collect();
        let labels = shown.iter().map(|&there| there.into()).collect::<Vec<i64>>();
        let mut run = || {
            let scores: Vec<f64> =
                shown.iter().map(|&there| f64::from(u8::from(there)) + noise * rng.normal()).collect();
            let rankings = score::rankings(&scores, &shown, 2);
            Run { images: "same".into(), labels: labels.clone(), right: vec![], rankings }
        };
        (0..runs).map(|_| run()).collect()
    }

    #[test]
    fn rankings_are_resampled() {
        let rng = &mut Rng::new(4, "estimate", 0, 0);
        let (good, bad) = (ranked(rng, 3, 0.4), ranked(rng, 3, 1.5));
        let found = estimate(&good, Mean::Ranks, (0.0, 1.0), 0.0);
        assert!(
            (found.value - average(&good.iter().map(|run| run.figure(Mean::Ranks)).collect::<Vec<_>>())).abs() < 1e-12
        );
        assert!(found.within > 0.0 && found.between > 0.0 && found.interval.0 < found.value);
        let (apart, (low, high)) = difference(&good, &bad, Mean::Ranks, 0.0).unwrap();
        assert!(0.1 < low && low < apart && apart < high, "{low} {apart} {high}");
        // Two single runs are resampled together.
        let (apart, (low, high)) = difference(&good[..1], &good[..1], Mean::Ranks, 0.0).unwrap();
        assert_eq!((apart, low, high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_single_run_has_the_interval_of_its_images_and_the_assumed_deviation_of_seeds() {
        let rng = &mut Rng::new(1, "estimate", 0, 0);
        let images = hardness(rng, 500);
        let runs = drawn(rng, 1, &images, 0.5, 0.0);
        let right = runs[0].right.iter().filter(|r| **r).count() as u64;
        let alone = estimate(&runs, Mean::Images, wilson(right, 500), 0.0);
        assert!((alone.interval.0 - wilson(right, 500).0).abs() < 1e-12);
        let assumed = estimate(&runs, Mean::Images, wilson(right, 500), 0.05);
        assert!((assumed.interval.1 - assumed.value - (alone.interval.1 - alone.value).hypot(Z * 0.05)).abs() < 1e-12);
    }

    #[test]
    fn two_single_runs_are_compared_image_by_image() {
        let rng = &mut Rng::new(2, "estimate", 0, 0);
        let images = hardness(rng, 500);
        let [a, b] = [0.7, 0.5].map(|level| drawn(rng, 1, &images, level, 0.0));
        let (value, interval) = difference(&a, &b, Mean::Images, 0.0).unwrap();
        let pairs = Pairs::count(&a[0].right, &b[0].right);
        assert!((value - (pairs.first as f64 - pairs.second as f64) / 500.0).abs() < 1e-12);
        let expected = pairs.difference();
        assert!((interval.0 - expected.0).abs() < 1e-12 && (interval.1 - expected.1).abs() < 1e-12);
        let by_class = difference(&a, &b, Mean::Classes, 0.0).unwrap();
        assert!(by_class.1.0 < by_class.0 && by_class.0 < by_class.1.1);
    }

    #[test]
    fn runs_on_different_images_are_compared_run_by_run() {
        let rng = &mut Rng::new(3, "estimate", 0, 0);
        let images = hardness(rng, 200);
        let mut first = drawn(rng, 2, &images, 0.9, 0.05);
        let mut second = drawn(rng, 2, &images, 0.5, 0.05);
        first[1].images = "others".into();
        assert_eq!(difference(&first, &second, Mean::Images, 0.0), None);
        assert_eq!(difference(&first[..1], &first[1..], Mean::Images, 0.0), None);
        second[1].images = "others".into();
        let (value, (low, high)) = difference(&first, &second, Mean::Images, 0.0).unwrap();
        let apart: Vec<f64> = (0..2).map(|i| first[i].figure(Mean::Images) - second[i].figure(Mean::Images)).collect();
        assert!((value - average(&apart)).abs() < 1e-12 && low < value && value < high);
    }
}
