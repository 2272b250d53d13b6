//! Learning rate schedules. A rate is constant within an epoch, as in the authors' published training.

use std::f64::consts::PI;

/// A rate that warms up linearly over `warmup` epochs to `base`, then falls to `last` by a half cosine over the
/// remaining epochs (Loshchilov and Hutter 2017): (e + 1)/`warmup` of `base` for e < `warmup`, and `base` again at e =
/// `warmup`.
pub fn warm_cosine(base: f64, last: f64, warmup: u64, epochs: u64, epoch: u64) -> f64 {
    if epoch < warmup {
        return base * (epoch + 1) as f64 / warmup as f64;
    }
    last + (base - last) * falling(epoch - warmup, epochs.saturating_sub(warmup))
}

/// The key encoder's momentum: from `start` to 1 by a half cosine over all epochs.
pub fn key_momentum(start: f64, epochs: u64, epoch: u64) -> f64 {
    1.0 - falling(epoch, epochs) * (1.0 - start)
}

/// From 1 at 0 to 0 at `length`, half a cosine.
fn falling(at: u64, length: u64) -> f64 {
    0.5 * (1.0 + (PI * at as f64 / length.max(1) as f64).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn a_rate_warms_up_then_falls_to_its_end() {
        let rate = |epoch| warm_cosine(1.2, 0.012, 10, 200, epoch);
        near(rate(0), 0.12);
        near(rate(9), 1.2);
        near(rate(10), 1.2);
        near(rate(105), (1.2 + 0.012) / 2.0);
        assert!(rate(199) > 0.012 && rate(199) < 0.0122);
    }

    #[test]
    fn a_rate_that_ends_where_it_starts_is_constant() {
        near(warm_cosine(3.0, 3.0, 10, 200, 150), 3.0);
    }

    #[test]
    fn a_training_shorter_than_its_warm_up_has_no_cosine() {
        near(warm_cosine(1.0, 0.01, 10, 4, 3), 0.4);
        near(warm_cosine(1.0, 0.01, 0, 1, 0), 1.0);
    }

    #[test]
    fn key_momentum_rises_to_one() {
        near(key_momentum(0.99, 200, 0), 0.99);
        near(key_momentum(0.99, 200, 100), 0.995);
        near(key_momentum(0.99, 200, 200), 1.0);
    }
}
