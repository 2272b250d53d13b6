//! What training needs of libtorch and `tch` does not bind: the other side of bridge.cpp.

use anyhow::{Result, bail};
use std::ffi::{CStr, c_char};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
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
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        mean: *const C_tensor,
        variance: *const C_tensor,
        add: *const C_tensor,
        relu: bool,
        train: bool,
        result: *mut *mut C_tensor,
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

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// The version of libtorch that this was compiled against, such as `2.11.0`.
pub fn version() -> String {
    // SAFETY: a static string.
    unsafe { CStr::from_ptr(caco_version()) }.to_string_lossy().into_owned()
}

/// Makes libtorch choose deterministic algorithms only, without filling new memory, and f32 mean f32 (no TF32).
pub fn deterministic(yes: bool) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { caco_deterministic(yes) }, "cannot set libtorch's determinism")
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

/// One LARS step: changes `params` and `momenta`, and perhaps `grads`. Tensors of one dimension get neither decay nor
/// trust ratio. On the CPU in two passes over the memory, on a GPU in multi-tensor launches. Gives the norm of all
/// gradients together (a scalar on their device), before decay.
pub fn lars(params: &[Tensor], grads: &[Tensor], momenta: &[Tensor], rate: f64, lars: Lars) -> Result<Tensor> {
    assert!(params.len() == grads.len() && params.len() == momenta.len(), "one gradient and momentum a parameter");
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

/// `averages` ← `averages` + `weight` · (`values` − `averages`), one by one.
pub fn average(averages: &[Tensor], values: &[Tensor], weight: f64) -> Result<()> {
    assert_eq!(averages.len(), values.len(), "one value an average");
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

/// Batch norm of `x` [N, C] or [N, C, H, W] (momentum 0.1, ε 1e-5), plus `add` and through a ReLU where there is one, or
/// through a ReLU alone where `relu`. `x` is used up: without autograd the result takes its place in memory.
///
/// Where the CPU's own kernels do not take it (a GPU, channels that fill no vector), libtorch's operations do.
pub fn norm(x: Tensor, norm: Norm, add: Option<&Tensor>, relu: bool, train: bool) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: all tensors live through the call, and the new one is ours.
    unsafe {
        let error = caco_norm(
            x.as_ptr(),
            norm.weight.as_ptr(),
            norm.bias.as_ptr(),
            norm.mean.as_ptr(),
            norm.variance.as_ptr(),
            add.map_or(std::ptr::null(), Tensor::as_ptr),
            relu,
            train,
            &raw mut result,
        );
        check(error, "batch norm")?;
        Ok(Tensor::from_ptr(result))
    }
}
