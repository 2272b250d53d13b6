//! Convolutions without bias that avoid a kernel which writes out of bounds.
//!
//! oneDNN computes a 1×1 convolution of stride 2 on channels-last images by copying every second pixel into a workspace.
//! In the weight gradient it places those copies at multiples of its vector length (8 channels with AVX2, 16 with
//! AVX-512) in a workspace sized for the actual channels. With fewer channels it writes past the end: wrong gradients,
//! a crash, or threads that wait forever at an overwritten barrier
//! (<https://github.com/uxlfoundation/oneDNN/issues/6035>, open; in libtorch 2.11). Here such convolutions drop the
//! unused pixels and run at stride 1. This depends only on the shape, so that every machine takes the same path.

use super::weights::channels_last;
use crate::bridge;
use caco_measure::rng::Rng;
use std::sync::LazyLock;
use tch::{Kind, Tensor};

/// Input channels at which the kernel stays in bounds on every CPU: the floats of an AVX-512 register.
const SAFE_CHANNELS: i64 = 16;

/// Every x [N, C, H, W], in `shards` shards per view, convolved with `weight` [O, C, k, k] → [N, O, H', W'].
pub fn convolve(xs: &[Tensor], shards: usize, weight: &Tensor, stride: i64, padding: i64) -> Vec<Tensor> {
    let (_, channels, kernel, _) = weight.size4().expect("a weight has four dimensions");
    if kernel == 1 && stride > 1 && padding == 0 && channels < SAFE_CHANNELS {
        let used = |x: &Tensor| channels_last(&x.slice(2, None, None, stride).slice(3, None, None, stride));
        return raw(&xs.iter().map(used).collect::<Vec<_>>(), shards, weight, 1, 0);
    }
    raw(xs, shards, weight, stride, padding)
}

/// The same with libtorch's choice of kernel, whatever the shape.
pub fn raw(xs: &[Tensor], shards: usize, weight: &Tensor, stride: i64, padding: i64) -> Vec<Tensor> {
    // Shapes fit by declaration, so what fails is memory: a panic, as in tch's operations.
    bridge::convolve(xs, shards, weight, stride, padding).unwrap_or_else(|error| panic!("{error:#}"))
}

/// [`convolve`] or [`raw`].
pub type Convolve = fn(&[Tensor], usize, &Tensor, i64, i64) -> Vec<Tensor>;

/// A convolution of square images, for comparison with float64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Number of images.
    pub batch: i64,
    /// Input channels.
    pub from: i64,
    /// Output channels.
    pub to: i64,
    /// Side of the kernel; the padding is half of it, rounded down.
    pub kernel: i64,
    /// Stride.
    pub stride: i64,
    /// Side of the images.
    pub size: i64,
    /// Whether images and weight are channels-last.
    pub channels_last: bool,
}

impl Case {
    /// The largest difference of the values and both gradients from float64, relative to the largest number there.
    pub fn distance(&self, convolve: Convolve) -> f64 {
        let (exact, single) = (self.learn(Kind::Double, raw), self.learn(Kind::Float, convolve));
        single.iter().zip(&exact).map(|(single, exact)| distance(single, exact)).fold(0.0, f64::max)
    }

    fn learn(&self, kind: Kind, convolve: Convolve) -> Vec<Tensor> {
        let lay = |t: Tensor| if self.channels_last { channels_last(&t) } else { t }.to_kind(kind);
        let Case { batch, from, to, kernel, size, .. } = *self;
        let x = lay(noise(&[batch, from, size, size], 1)).set_requires_grad(true);
        let weight = lay(noise(&[to, from, kernel, kernel], 2)).set_requires_grad(true);
        let y = convolve(std::slice::from_ref(&x), 1, &weight, self.stride, kernel / 2).remove(0);
        let towards = lay(noise(&y.size(), 3));
        let gradients = Tensor::run_backward(&[(&y * towards).sum(kind)], &[&x, &weight], false, false);
        std::iter::once(y.detach()).chain(gradients).collect()
    }
}

fn distance(ours: &Tensor, exact: &Tensor) -> f64 {
    let largest = exact.abs().max().double_value(&[]).max(1e-30);
    let apart = (ours.to_kind(Kind::Double) - exact).abs().max().double_value(&[]) / largest;
    if apart.is_nan() { f64::INFINITY } else { apart }
}

/// Normal random numbers, a different sequence for each `seed`.
fn noise(shape: &[i64], seed: usize) -> Tensor {
    static DRAWN: LazyLock<Vec<f32>> = LazyLock::new(|| {
        let mut rng = Rng::new(0, "convolution", 0, 0);
        (0..1 << 16).map(|_| rng.normal() as f32).collect()
    });
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = DRAWN.iter().cycle().skip(seed * 4099).take(count).copied().collect();
    Tensor::from_slice(&values).view(shape)
}

/// Tests whether libtorch computes the convolutions of small networks correctly on this machine. Returns the largest
/// difference from float64, relative to the largest number; about 1e-6 is normal. On a faulty machine this may crash or
/// never return, so call it in a separate process.
pub fn self_test() -> f64 {
    let mut worst = 0.0_f64;
    for from in [3, 4, 8, 16, 32, 64] {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
            for to in [from, 2 * from] {
                let case = Case { batch: 3, from, to, kernel, stride, size: 16, channels_last: true };
                worst = worst.max(case.distance(convolve));
            }
        }
    }
    worst
}

/// Maximum difference that [`self_test`] may return.
pub const TOLERANCE: f64 = 1e-4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strided_convolution_agrees_with_float64() {
        crate::device::open("cpu", 2, caco_kinds::Determinism::Fast).unwrap();
        for from in 1..=24 {
            for to in [from, 2 * from, 4 * from] {
                for size in [1, 7, 8, 16, 30] {
                    let case = Case { batch: 3, from, to, kernel: 1, stride: 2, size, channels_last: true };
                    let distance = case.distance(convolve);
                    assert!(distance < TOLERANCE, "{case:?}: {distance:e}");
                }
            }
        }
    }

    #[test]
    fn the_self_test_passes_here() {
        let distance = self_test();
        assert!(distance < TOLERANCE, "{distance:e}");
    }
}
