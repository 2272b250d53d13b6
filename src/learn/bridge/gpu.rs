//! Functions of the CUDA half of libtorch, which must be loaded.

use super::check;
use anyhow::Result;
use std::ffi::{c_char, c_int, c_long, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn caco_upload(tensor: *const C_tensor, device: c_int, result: *mut *mut C_tensor) -> *mut c_char;
    fn caco_gpu_versions(cuda: *mut c_long, cudnn: *mut c_long) -> *mut c_char;
    fn caco_gpu_memory(device: c_int, allocated: *mut i64, reserved: *mut i64) -> *mut c_char;
}

/// Copies a CPU tensor to GPU `device` through pinned memory. Its data may be freed on return, although the GPU may not
/// have the copy yet: nothing waits for it.
pub fn upload(tensor: &Tensor, device: usize) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: the tensor lives through the call, and the new one is ours.
    unsafe {
        check(caco_upload(tensor.as_ptr(), c_int::try_from(device)?, &raw mut result), "copy to the GPU")?;
        Ok(Tensor::from_ptr(result))
    }
}

/// Versions of the libraries below libtorch, as numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The CUDA runtime: 13000 is 13.0.
    pub cuda: i32,
    /// cuDNN: 91900 is 9.19.0.
    pub cudnn: i64,
    /// cuBLASLt; 0 if it does not say.
    pub cublas: usize,
}

/// The versions of the loaded libraries.
pub fn gpu_versions() -> Result<Versions> {
    let (mut cuda, mut cudnn) = (0, 0);
    // SAFETY: the numbers live through the call; the symbol, if it is there, has the signature of cublasLt.h.
    let cublas = unsafe {
        check(caco_gpu_versions(&raw mut cuda, &raw mut cudnn), "versions of CUDA")?;
        let symbol: *mut c_void = libc::dlsym(libc::RTLD_DEFAULT, c"cublasLtGetVersion".as_ptr());
        (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, extern "C" fn() -> usize>(symbol)())
    };
    Ok(Versions { cuda: i32::try_from(cuda)?, cudnn, cublas: cublas.unwrap_or_default() })
}

/// The most memory of GPU `device` that tensors used, and that libtorch took from the driver for them, in bytes. The
/// workspaces of cuDNN are included, the memory of CUDA itself is not.
pub fn gpu_memory(device: usize) -> Result<(u64, u64)> {
    let (mut allocated, mut reserved) = (0, 0);
    // SAFETY: the numbers live through the call.
    let error = unsafe { caco_gpu_memory(c_int::try_from(device)?, &raw mut allocated, &raw mut reserved) };
    check(error, "memory of the GPU")?;
    Ok((allocated as u64, reserved as u64))
}
