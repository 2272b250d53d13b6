//! Layers applied to all views of a batch, each in shards.

use super::{pointers, receive};
use anyhow::Result;
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn caco_convolve(
        xs: *const *const C_tensor,
        count: usize,
        shards: usize,
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn caco_linear(
        xs: *const *const C_tensor,
        count: usize,
        shards: usize,
        weight: *const C_tensor,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn caco_whole_linear(x: *const C_tensor, weight: *const C_tensor, result: *mut *mut C_tensor) -> *mut c_char;
    fn caco_pool(xs: *const *const C_tensor, count: usize, results: *mut *mut C_tensor) -> *mut c_char;
    fn caco_product(a: *const C_tensor, b: *const C_tensor, result: *mut *mut C_tensor) -> *mut c_char;
}

/// Every x [N, C, H, W] convolved with `weight` [O, C, k, k] → [N, O, H', W']. The weight's gradient is summed over the
/// views of each shard, then over shards in a fixed tree.
pub fn convolve(xs: &[Tensor], shards: usize, weight: &Tensor, stride: i64, padding: i64) -> Result<Vec<Tensor>> {
    // SAFETY: all tensors live through the call.
    receive(xs.len(), "convolution", |results| unsafe {
        caco_convolve(pointers(xs).as_ptr(), xs.len(), shards, weight.as_ptr(), stride, padding, results)
    })
}

/// Every x [N, C] times the transpose of `weight` [O, C] → [N, O]; its gradient is summed as in [`convolve`].
pub fn linear(xs: &[Tensor], shards: usize, weight: &Tensor) -> Result<Vec<Tensor>> {
    // SAFETY: all tensors live through the call.
    receive(xs.len(), "linear layer", |results| unsafe {
        caco_linear(pointers(xs).as_ptr(), xs.len(), shards, weight.as_ptr(), results)
    })
}

/// [`linear`] of one x that every process has whole.
pub fn whole_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    // SAFETY: both live through the call.
    let result = receive(1, "linear layer", |result| unsafe { caco_whole_linear(x.as_ptr(), weight.as_ptr(), result) });
    Ok(result?.remove(0))
}

/// The maximum of every window of 3 × 3 of every x [N, C, H, W], at stride 2, padded by 1.
pub fn pool(xs: &[Tensor]) -> Result<Vec<Tensor>> {
    // SAFETY: all tensors live through the call.
    receive(xs.len(), "max-pool", |results| unsafe { caco_pool(pointers(xs).as_ptr(), xs.len(), results) })
}

/// The product of two matrices, without autograd.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // SAFETY: both live through the call.
    let result = receive(1, "product of matrices", |result| unsafe { caco_product(a.as_ptr(), b.as_ptr(), result) });
    Ok(result?.remove(0))
}
