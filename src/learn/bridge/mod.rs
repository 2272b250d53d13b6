//! Functions of libtorch that training needs and `tch` does not bind: the Rust part of bridge.cpp.

mod crew;
mod gpu;
mod layer;
mod recompute;
pub mod team;

pub use crew::{each, start as start_crew};
pub use gpu::{Sent, Versions, gpu_memory, gpu_versions, pinned, send, upload};
pub use layer::{convolve, linear, pool, product, whole_linear};
pub use recompute::recompute;

use anyhow::{Result, bail};
use std::ffi::{CStr, c_char};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn caco_keep_memory() -> *mut c_char;
    fn caco_version() -> *const c_char;
    fn caco_deterministic(yes: bool) -> *mut c_char;
    fn caco_lars(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momenta: *const *const C_tensor,
        count: usize,
        rate: f64,
        momentum: f64,
        decay: f64,
        trust: f64,
        norm: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn caco_norm(
        xs: *const *const C_tensor,
        count: usize,
        shards: usize,
        weight: *const C_tensor,
        bias: *const C_tensor,
        mean: *const C_tensor,
        variance: *const C_tensor,
        adds: *const *const C_tensor,
        relu: bool,
        train: bool,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn caco_average(
        averages: *const *const C_tensor,
        values: *const *const C_tensor,
        count: usize,
        weight: f64,
    ) -> *mut c_char;
}

fn check(error: *mut c_char, what: &str) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error is a string from strdup, ours to free.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        message
    };
    bail!("{what}: {message}")
}

/// Calls a function that writes `count` new tensors and returns an error.
fn receive(count: usize, what: &str, call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Vec<Tensor>> {
    let mut results = vec![std::ptr::null_mut(); count];
    check(call(results.as_mut_ptr()), what)?;
    // SAFETY: without an error all are new, and ours.
    Ok(results.into_iter().map(|result| unsafe { Tensor::from_ptr(result) }).collect())
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// The version of libtorch compiled against, such as `2.11.0`.
pub fn version() -> String {
    // SAFETY: a static string.
    unsafe { CStr::from_ptr(caco_version()) }.to_string_lossy().into_owned()
}

/// Makes libtorch use only deterministic algorithms, without filling new memory, and disables TF32.
pub fn deterministic(yes: bool) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { caco_deterministic(yes) }, "cannot set libtorch's determinism")
}

/// Keeps the memory of large CPU tensors, in huge pages, for the next tensor of the same size instead of returning it
/// to the system. Must be called before the first tensor is created.
pub fn keep_memory() -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { caco_keep_memory() }, "cannot set libtorch's allocator")
}

/// The constants of LARS (You et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lars {
    /// Momentum of the update.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Trust coefficient.
    pub trust: f64,
}

/// One LARS step: changes `params` and `momenta`, and may change `grads`. One-dimensional tensors get neither decay nor
/// trust ratio. Takes two passes over the memory on the CPU, multi-tensor launches on a GPU. Returns the norm of all
/// gradients together (a scalar on their device), before decay.
pub fn lars(params: &[Tensor], grads: &[Tensor], momenta: &[Tensor], rate: f64, lars: Lars) -> Result<Tensor> {
    assert!(params.len() == grads.len() && params.len() == momenta.len(), "one gradient and momentum per parameter");
    let mut norm = std::ptr::null_mut();
    // SAFETY: the arrays live through the call, and the new tensor is ours.
    unsafe {
        let error = caco_lars(
            pointers(params).as_ptr(),
            pointers(grads).as_ptr(),
            pointers(momenta).as_ptr(),
            params.len(),
            rate,
            lars.momentum,
            lars.weight_decay,
            lars.trust,
            &raw mut norm,
        );
        check(error, "LARS step")?;
        Ok(Tensor::from_ptr(norm))
    }
}

/// `averages` ← `averages` + `weight` · (`values` − `averages`), elementwise.
pub fn average(averages: &[Tensor], values: &[Tensor], weight: f64) -> Result<()> {
    assert_eq!(averages.len(), values.len(), "one value per average");
    // SAFETY: the arrays live through the call.
    let error = unsafe { caco_average(pointers(averages).as_ptr(), pointers(values).as_ptr(), averages.len(), weight) };
    check(error, "moving average")
}

/// Parameters and running statistics of a batch norm, each [C].
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Weight.
    pub weight: &'a Tensor,
    /// Bias.
    pub bias: &'a Tensor,
    /// Running mean.
    pub mean: &'a Tensor,
    /// Running variance.
    pub variance: &'a Tensor,
}

/// Batch norm of every x [N, C] or [N, C, H, W] (momentum 0.1, ε 1e-5); followed by adding its one of `adds` and a ReLU
/// if those are given, or by just a ReLU if `relu`. `xs` are the views of a batch, each in `shards` shards: every view
/// has its own statistics over all its shards, and moves the running ones. They are consumed: without autograd the
/// results reuse their memory.
///
/// Falls back to libtorch's operations where the CPU kernels do not apply (on a GPU, or if channels do not fill a
/// vector).
pub fn norm(
    xs: Vec<Tensor>,
    shards: usize,
    norm: Norm,
    adds: Option<&[Tensor]>,
    relu: bool,
    train: bool,
) -> Result<Vec<Tensor>> {
    assert!(adds.is_none_or(|adds| adds.len() == xs.len()), "one addition for each tensor");
    let adds = adds.map(pointers);
    // SAFETY: all tensors live through the call.
    receive(xs.len(), "batch norm", |results| unsafe {
        caco_norm(
            pointers(&xs).as_ptr(),
            xs.len(),
            shards,
            norm.weight.as_ptr(),
            norm.bias.as_ptr(),
            norm.mean.as_ptr(),
            norm.variance.as_ptr(),
            adds.as_ref().map_or(std::ptr::null(), Vec::as_ptr),
            relu,
            train,
            results,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, model::weights::channels_last};
    use caco_measure::rng::Rng;
    use tch::{Device, Kind, no_grad};

    /// The device of the tests.
    fn here() -> Device {
        device::for_tests(2).unwrap()
    }

    fn noise(shape: &[i64], seed: u64, kind: Kind) -> Tensor {
        let mut rng = Rng::new(seed, "bridge", 0, 0);
        let values: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| 0.5 + rng.normal()).collect();
        channels_last(&Tensor::from_slice(&values).view(shape).to_kind(kind).to_device(here()))
    }

    fn one(results: Result<Vec<Tensor>>) -> Tensor {
        results.unwrap().pop().unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let [a, b] = [a, b].map(|x| x.detach().to_kind(Kind::Double));
        ((a - &b).abs().max() / b.abs().max().clamp_min(1.0)).double_value(&[])
    }

    /// Number of elements that differ by more than `tolerance` times the largest.
    fn far(a: &Tensor, b: &Tensor, tolerance: f64) -> usize {
        let [a, b] = [a, b].map(|x| x.detach().to_kind(Kind::Double));
        let most = b.abs().max().double_value(&[]).max(1.0) * tolerance;
        (a - b).abs().le(most).logical_not().sum(Kind::Int64).int64_value(&[]) as usize
    }

    /// Result, running statistics and gradients of x, add, weight and bias.
    fn learn(shape: &[i64], kind: Kind, add: bool, relu: bool, ours: bool) -> Vec<Tensor> {
        let own = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let channels = [shape[1]];
        let leaf = |shape: &[i64], seed, kind| noise(shape, seed, kind).set_requires_grad(true);
        let (x, plus) = (leaf(shape, 1, kind), leaf(shape, 2, kind));
        let (weight, bias) = (leaf(&channels, 3, own), leaf(&channels, 4, own));
        let (mean, variance) = (noise(&channels, 5, own), noise(&channels, 6, own).abs());
        let y = if ours {
            let parts = Norm { weight: &weight, bias: &bias, mean: &mean, variance: &variance };
            one(norm(vec![x.shallow_clone()], 1, parts, add.then(|| std::slice::from_ref(&plus)), relu, true))
        } else {
            let all = [&weight, &bias, &mean, &variance].map(Some);
            let y = x.batch_norm(all[0], all[1], all[2], all[3], true, 0.1, 1e-5, true);
            let y = if add { y + &plus } else { y };
            if add || relu { y.relu() } else { y }
        };
        let scalar = (&y * noise(shape, 7, kind)).to_kind(own).sum(None);
        let mut inputs = vec![&x, &weight, &bias];
        inputs.extend(add.then_some(&plus));
        let gradients = Tensor::run_backward(&[scalar], &inputs, false, false);
        [y, mean, variance].into_iter().chain(gradients).collect()
    }

    #[test]
    fn a_norm_agrees_with_libtorchs_operations() {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-2), (Kind::BFloat16, 3e-2)] {
            // Full vectors in blocks of four, two and one; more than one piece; channels that do not fill a vector; no
            // positions.
            for shape in [[5, 112, 3, 3].as_slice(), &[3, 16, 40, 40], &[4, 5, 6, 6], &[9, 48]] {
                for (add, relu) in [(false, false), (false, true), (true, true)] {
                    let (ours, theirs) = (learn(shape, kind, add, relu, true), learn(shape, kind, add, relu, false));
                    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                        // Rounding may turn a zero positive, so that the ReLU passes its gradient: f64 is compared to
                        // its last digits, the other types allow for a few such elements.
                        let most = if kind == Kind::Double { 0 } else { a.numel() / 2000 };
                        let far = far(a, b, tolerance);
                        assert!(far <= most, "{kind:?} {shape:?} {add} {relu}: {far} numbers of tensor {i}");
                    }
                }
            }
        }
    }

    /// As [`learn`] in f64, of two views, each of them in so many shards.
    fn learn_sharded(shape: &[i64], shards: i64, add: bool) -> Vec<Tensor> {
        let leaf = |shape: &[i64], seed| noise(shape, seed, Kind::Double).set_requires_grad(true);
        let channels = [shape[1]];
        let leaves: Vec<Tensor> = (0..4).map(|seed| leaf(shape, seed)).collect();
        let (weight, bias) = (leaf(&channels, 4), leaf(&channels, 5));
        let (mean, variance) = (noise(&channels, 6, Kind::Double), noise(&channels, 7, Kind::Double).abs());
        let cut = |whole: &[Tensor]| whole.iter().flat_map(|view| view.chunk(shards, 0)).collect::<Vec<_>>();
        let (xs, adds) = (cut(&leaves[..2]), cut(&leaves[2..]));
        let parts = Norm { weight: &weight, bias: &bias, mean: &mean, variance: &variance };
        let ys = norm(xs, shards as usize, parts, add.then_some(&adds), true, true).unwrap();
        let y = Tensor::cat(&ys, 0);
        let scalar = (&y * noise(&y.size(), 8, Kind::Double)).sum(None);
        let inputs: Vec<&Tensor> = leaves[..if add { 4 } else { 2 }].iter().chain([&weight, &bias]).collect();
        let gradients = Tensor::run_backward(&[scalar], &inputs, false, false);
        [y, mean, variance].into_iter().chain(gradients).collect()
    }

    #[test]
    fn a_view_in_shards_is_normalised_as_a_whole() {
        // With channels that fill vectors, more than one piece, and channels that do not.
        for shape in [[8, 16, 3, 3].as_slice(), &[8, 16, 40, 40], &[8, 5, 6, 6], &[8, 48]] {
            for add in [false, true] {
                let whole = learn_sharded(shape, 1, add);
                for shards in [2, 4, 8] {
                    let apart = learn_sharded(shape, shards, add);
                    let far = whole.iter().zip(&apart).map(|(a, b)| distance(a, b)).fold(0.0, f64::max);
                    assert!(far < 1e-12, "{shape:?} {shards} {add}: {far}");
                }
            }
        }
    }

    #[test]
    fn without_autograd_a_norm_reuses_the_memory_of_its_input() {
        for train in [true, false] {
            no_grad(|| {
                let x = noise(&[4, 32, 3, 3], 1, Kind::Float);
                let parts: Vec<Tensor> = (2..6).map(|seed| noise(&[32], seed, Kind::Float).abs()).collect();
                let all = || parts.iter().map(|p| Some(p.copy())).collect::<Vec<_>>();
                let [weight, bias, mean, variance] = all().try_into().unwrap();
                let theirs = x.batch_norm(weight, bias, mean, variance, train, 0.1, 1e-5, true).relu();
                let names = Norm { weight: &parts[0], bias: &parts[1], mean: &parts[2], variance: &parts[3] };
                let at = x.data_ptr();
                let ours = one(norm(vec![x], 1, names, None, true, train));
                // On a GPU these are libtorch's operations.
                assert!(ours.data_ptr() == at || here() != Device::Cpu);
                assert!(distance(&ours, &theirs) < 1e-5, "train {train}");
            });
        }
    }

    #[test]
    fn a_norm_propagates_nan() {
        let x = noise(&[4, 16], 1, Kind::BFloat16);
        let _ = x.get(2).get(3).fill_(f64::NAN);
        let parts = [1.0, 0.0, 0.0, 1.0].map(|value| Tensor::full([16], value, (Kind::Float, here())));
        let names = Norm { weight: &parts[0], bias: &parts[1], mean: &parts[2], variance: &parts[3] };
        let y = no_grad(|| one(norm(vec![x], 1, names, None, true, false)));
        assert_eq!(y.isnan().sum(Kind::Int64).int64_value(&[]), 1);
    }

    #[test]
    fn lars_follows_its_formula() {
        const LARS: Lars = Lars { momentum: 0.9, weight_decay: 0.01, trust: 0.001 };
        for kind in [Kind::Float, Kind::Double] {
            // More than one piece; a bias; a tensor of zeros, whose step is not scaled.
            let shapes: [&[i64]; 3] = [&[70, 60, 3, 3], &[33], &[4, 5]];
            let draw = |seed| -> Vec<Tensor> { shapes.iter().map(|shape| noise(shape, seed, kind)).collect() };
            let (params, grads, momenta) = (draw(1), draw(2), draw(3));
            let _ = params[2].shallow_clone().zero_();
            let mut expected = vec![];
            for ((p, g), m) in params.iter().zip(&grads).zip(&momenta) {
                let mut g = g.copy();
                if p.dim() > 1 {
                    g += p * 0.01;
                    let (pn, gn) = (p.norm().double_value(&[]), g.norm().double_value(&[]));
                    g *= if pn > 0.0 && gn > 0.0 { 0.001 * pn / gn } else { 1.0 };
                }
                let m = m * 0.9 + g;
                expected.push((p - &m * 0.5, m));
            }
            let squares = grads.iter().map(|g| g.square().sum(None).double_value(&[]));
            let whole = squares.sum::<f64>().sqrt();
            let norm = lars(&params, &grads, &momenta, 0.5, LARS).unwrap().double_value(&[]);
            assert!((norm / whole - 1.0).abs() < 1e-5, "{norm} {whole}");
            for ((p, m), (ours, momentum)) in expected.iter().zip(params.iter().zip(&momenta)) {
                assert!(distance(ours, p) < 1e-6 && distance(momentum, m) < 1e-6, "{kind:?} {:?}", p.size());
            }
        }
    }

    #[test]
    fn an_average_moves_by_its_weight() {
        let (a, b) = (noise(&[7], 1, Kind::Double), noise(&[7], 2, Kind::Double));
        let expected = &a * 0.9 + &b * 0.1;
        average(std::slice::from_ref(&a), &[b], 0.1).unwrap();
        assert!(distance(&a, &expected) < 1e-15);
    }

    #[test]
    fn an_error_in_libtorch_is_returned() {
        let x = noise(&[4, 16], 1, Kind::Float);
        let short = Tensor::ones([3], (Kind::Float, here()));
        let names = Norm { weight: &short, bias: &short, mean: &short, variance: &short };
        assert!(norm(vec![x], 1, names, None, true, true).unwrap_err().to_string().contains("batch norm"));
    }
}
