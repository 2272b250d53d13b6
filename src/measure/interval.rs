//! Uncertainty of metrics: 95 % intervals for proportions, their differences and means over runs.

use crate::rng::Rng;

/// The 97.5 % quantile of the standard normal distribution.
pub const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % score interval for a proportion (Wilson 1927). Without samples it is the full range.
pub fn wilson(right: u64, samples: u64) -> (f64, f64) {
    if samples == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (samples as f64, right as f64 / samples as f64);
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// Paired outcomes of two classifiers on the same samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Both correct.
    pub both: u64,
    /// Only the first correct.
    pub first: u64,
    /// Only the second correct.
    pub second: u64,
    /// Neither correct.
    pub neither: u64,
}

impl Pairs {
    /// Counts the outcomes, given for each sample whether the first and the second is correct. Both must have the same
    /// length.
    pub fn count(first: &[bool], second: &[bool]) -> Self {
        assert_eq!(first.len(), second.len(), "answers to the same questions");
        let mut pairs = Pairs::default();
        for (&a, &b) in first.iter().zip(second) {
            let cell = match (a, b) {
                (true, true) => &mut pairs.both,
                (true, false) => &mut pairs.first,
                (false, true) => &mut pairs.second,
                (false, false) => &mut pairs.neither,
            };
            *cell += 1;
        }
        pairs
    }

    /// 95 % interval for the first proportion minus the second: square-and-add from Wilson's limits, with the
    /// correlation of the pairs, continuity-corrected (Newcombe 1998, "Improved confidence intervals for the difference
    /// between binomial proportions based on paired data", Statistics in Medicine 17, method 10).
    pub fn difference(&self) -> (f64, f64) {
        let n = self.both + self.first + self.second + self.neither;
        if n == 0 {
            return (-1.0, 1.0);
        }
        let (ones, twos) = (self.both + self.first, self.both + self.second);
        let share = |right: u64| right as f64 / n as f64;
        let ((low1, high1), (low2, high2)) = (wilson(ones, n), wilson(twos, n));
        let phi = self.correlation();
        let side = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
        let (p1, p2) = (share(ones), share(twos));
        (p1 - p2 - side(p1 - low1, high2 - p2), p1 - p2 + side(high1 - p1, p2 - low2))
    }

    /// The φ coefficient, with its numerator reduced by n/2 if positive; 0 if a margin is empty.
    fn correlation(&self) -> f64 {
        let [a, b, c, d] = [self.both, self.first, self.second, self.neither].map(|count| count as f64);
        let margins = (a + b) * (c + d) * (a + c) * (b + d);
        let excess = a * d - b * c;
        let corrected = if excess > 0.0 { (excess - (a + b + c + d) / 2.0).max(0.0) } else { excess };
        if margins > 0.0 { corrected / margins.sqrt() } else { 0.0 }
    }
}

/// Number of bootstrap resamples: enough for the ends of a 95 % interval to be stable to a few hundredths of its width.
pub const RESAMPLES: u64 = 2000;

/// 95 % bootstrap interval, corrected for bias (Efron 1981, "Nonparametric standard errors and confidence intervals",
/// section 7): if most resamples are above the metric itself, as for a metric that takes maxima, the metric is above
/// the true value, and the ends are moved down. `figure` is called with how often each of `samples` was drawn, and
/// returns the metric on them. The draws are determined by `seed`. Without samples it is the widest interval.
pub fn bootstrap(samples: usize, seed: u64, mut figure: impl FnMut(&[u32]) -> f64) -> (f64, f64) {
    if samples == 0 {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    let mut counts = vec![0; samples];
    let resample = |number: u64| {
        counts.fill(0);
        let mut rng = Rng::new(seed, "bootstrap", 0, number);
        (0..samples).for_each(|_| counts[rng.below(samples as u64) as usize] += 1);
        figure(&counts)
    };
    let mut figures: Vec<f64> = (0..RESAMPLES).map(resample).collect();
    figures.sort_by(f64::total_cmp);
    let bias = normal_quantile(share_below(&figures, figure(&vec![1; samples])));
    let end = |z: f64| quantile(&figures, normal(2.0 * bias + z));
    (end(-Z), end(Z))
}

/// Fraction of sorted numbers below `value`, counting equal ones half; always strictly between 0 and 1.
fn share_below(sorted: &[f64], value: f64) -> f64 {
    let (below, up_to) = (sorted.partition_point(|x| *x < value), sorted.partition_point(|x| *x <= value));
    let half = 0.5 / sorted.len() as f64;
    ((below + up_to) as f64 * half).clamp(half, 1.0 - half)
}

/// The standard normal distribution.
fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

/// The quantile `p` of the standard normal distribution, 0 < p < 1, by bisection.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        *(if normal(middle) < p { &mut low } else { &mut high }) = middle;
    }
    (low + high) / 2.0
}

/// Quantile `p` of sorted numbers, with linear interpolation (Hyndman and Fan 1996, type 7).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The 97.5 % quantile of Student's t distribution with `freedom` (> 0, not necessarily an integer) degrees of freedom.
pub fn student(freedom: f64) -> f64 {
    if !freedom.is_finite() {
        return Z;
    }
    // P(|T| > t) = I_x(ν/2, 1/2) with x = ν / (ν + t²); it decreases with t, so t is found by bisection.
    let beyond = |t: f64| incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5);
    let (mut low, mut high) = (0.0, 2.0);
    while beyond(high) > 0.05 && high < 1e300 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        *(if beyond(middle) > 0.05 { &mut low } else { &mut high }) = middle;
    }
    (low + high) / 2.0
}

/// The regularised incomplete beta function I_x(a, b), 0 ≤ x ≤ 1 (DLMF 8.17.22, the continued fraction by Lentz).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let away_from_zero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln Γ(x) for x > 0: Stirling's series (DLMF 5.11.1), after the recurrence has raised x above 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let w = 1.0 / (x * x);
    let series = (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0 - w * (1.0 / 1680.0 - w / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: (f64, f64), b: (f64, f64), tolerance: f64) -> bool {
        (a.0 - b.0).abs() <= tolerance && (a.1 - b.1).abs() <= tolerance
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263 and 0 of 20.
        assert!(close(wilson(81, 263), (0.2553, 0.3662), 5e-5), "{:?}", wilson(81, 263));
        assert!(close(wilson(0, 20), (0.0, 0.1611), 5e-5), "{:?}", wilson(0, 20));
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn student_agrees_with_scipy() {
        // scipy.stats.t.ppf(0.975, df)
        let table = [
            (0.7, 36.6114150315886),
            (1.0, 12.7062047361747),
            (2.0, 4.30265272974946),
            (2.5, 3.57465484200368),
            (10.0, 2.22813885196494),
            (1000.0, 1.96233908082641),
        ];
        for (freedom, expected) in table {
            let t = student(freedom);
            assert!((t / expected - 1.0).abs() < 1e-10, "{freedom}: {t} {expected}");
        }
        assert!((student(1e9) - Z).abs() < 1e-6 && student(f64::INFINITY) == Z);
    }

    #[test]
    fn differences_agree_with_published_values() {
        // Newcombe 1998 (paired data), table II; the other two from an independent computation.
        let table = [
            ([36, 12, 2, 0], (0.0569, 0.3404)),
            ([20, 12, 2, 16], (0.0562, 0.3292)),
            ([700, 90, 60, 150], (0.0060, 0.0541)),
            ([98, 2, 0, 0], (-0.0197, 0.0700)),
        ];
        for ([both, first, second, neither], expected) in table {
            let found = Pairs { both, first, second, neither }.difference();
            assert!(close(found, expected, 5.1e-5), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn pairs_are_counted_and_the_difference_mirrors() {
        let (a, b) = ([true, true, false, false, true], [true, false, true, false, false]);
        let pairs = Pairs::count(&a, &b);
        assert_eq!(pairs, Pairs { both: 1, first: 2, second: 1, neither: 1 });
        let (low, high) = pairs.difference();
        let mirrored = Pairs::count(&b, &a).difference();
        assert!(close((-high, -low), mirrored, 1e-15));
        assert_eq!(Pairs::default().difference(), (-1.0, 1.0));
    }

    /// Fraction of `trials` in which `interval` contains `truth`.
    fn coverage(trials: u64, truth: f64, mut interval: impl FnMut(&mut Rng) -> (f64, f64)) -> f64 {
        let covers = |trial: &u64| {
            let (low, high) = interval(&mut Rng::new(11, "coverage", 0, *trial));
            low <= truth && truth <= high
        };
        (0..trials).filter(covers).count() as f64 / trials as f64
    }

    #[test]
    fn wilson_has_its_nominal_coverage() {
        for (n, p) in [(1000, 0.5), (1000, 0.9), (1000, 0.03), (2000, 0.7)] {
            let share = coverage(30_000, p, |rng| wilson((0..n).filter(|_| rng.chance(p)).count() as u64, n));
            assert!((0.94..=0.96).contains(&share), "n {n}, p {p}: {share}");
        }
    }

    #[test]
    fn differences_have_their_nominal_coverage() {
        // (both, only first, only second): similar encoders, one better than the other, independent ones.
        for (both, first, second) in [(0.6, 0.08, 0.05), (0.5, 0.3, 0.02), (0.42, 0.28, 0.18)] {
            let share = coverage(4000, first - second, |rng| {
                let mut pairs = Pairs::default();
                for _ in 0..1000 {
                    let u = rng.uniform();
                    let cell = match u {
                        u if u < both => &mut pairs.both,
                        u if u < both + first => &mut pairs.first,
                        u if u < both + first + second => &mut pairs.second,
                        _ => &mut pairs.neither,
                    };
                    *cell += 1;
                }
                pairs.difference()
            });
            assert!((0.94..=0.97).contains(&share), "{both} {first} {second}: {share}");
        }
    }

    #[test]
    fn the_bootstrap_is_seeded_and_finds_the_spread_of_a_mean() {
        let n = 1000;
        let value = |i: usize| (i % 10) as f64;
        let mean =
            |counts: &[u32]| counts.iter().enumerate().map(|(i, &c)| f64::from(c) * value(i)).sum::<f64>() / n as f64;
        let (low, high) = bootstrap(n, 3, mean);
        assert_eq!((low, high), bootstrap(n, 3, mean));
        assert_ne!((low, high), bootstrap(n, 4, mean));
        let half = Z * (8.25 / n as f64).sqrt();
        assert!(close((low, high), (4.5 - half, 4.5 + half), 0.03 * half + 0.01), "{low} {high} {half}");
    }

    #[test]
    fn the_bootstrap_corrects_a_bias() {
        // The mean of squares minus the square of the mean is a variance, which is biased down by 1/n, and again by 1/n
        // in a resample.
        let values: Vec<f64> = (0..40).map(|i| f64::from(i % 8)).collect();
        let spread = |counts: &[u32]| {
            let weigh = |f: fn(f64) -> f64| -> f64 {
                counts.iter().zip(&values).map(|(&c, &v)| f64::from(c) * f(v)).sum::<f64>() / 40.0
            };
            weigh(|v| v * v) - weigh(|v| v).powi(2)
        };
        // The same corrected interval computed with numpy from 200,000 resamples.
        let (low, high) = bootstrap(40, 0, spread);
        assert!(close((low, high), (3.994, 6.874), 0.12), "{low} {high}");
        assert_eq!(bootstrap(3, 0, |_| 0.5), (0.5, 0.5));
    }

    #[test]
    fn the_normal_distribution_agrees_with_scipy() {
        // scipy.stats.norm.ppf
        for (p, z) in [(0.5, 0.0), (0.975, Z), (0.00025, -3.480756404346212), (0.9, 1.2815515655446004)] {
            assert!((normal_quantile(p) - z).abs() < 1e-12 && (normal(z) - p).abs() < 1e-14, "{p}");
        }
    }

    #[test]
    fn quantiles_are_numpys() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.025), 5.0);
    }
}
