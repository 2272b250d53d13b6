//! Functions of the CUDA half of libtorch, which must be loaded.

use super::check;
use anyhow::Result;
use caco_data::memory::Bytes;
use std::{
    ffi::{c_char, c_int, c_long, c_void},
    mem::ManuallyDrop,
    slice,
};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn caco_pinned(bytes: i64, result: *mut *mut C_tensor) -> *mut c_char;
    fn caco_send(tensor: *const C_tensor, device: c_int, result: *mut *mut c_void) -> *mut c_char;
    fn caco_receive(sent: *mut c_void, result: *mut *mut C_tensor) -> *mut c_char;
    fn caco_drop_sent(sent: *mut c_void);
    fn caco_gpu_versions(cuda: *mut c_long, cudnn: *mut c_long) -> *mut c_char;
    fn caco_gpu_memory(device: c_int, allocated: *mut i64, reserved: *mut i64) -> *mut c_char;
}

/// A CPU tensor on its way to a GPU.
#[derive(Debug)]
pub struct Sent(*mut c_void);

// SAFETY: libtorch's tensors and events are used from any thread, by one at a time.
unsafe impl Send for Sent {}

/// Starts to copy a CPU tensor to GPU `number`, beside the kernels that run there. Nothing waits for the copy, yet the
/// tensor's data may be freed or overwritten on return unless it is in [`pinned`] memory; that may only be freed.
pub fn send(tensor: &Tensor, number: usize) -> Result<Sent> {
    let mut sent = std::ptr::null_mut();
    // SAFETY: the tensor lives through the call, and what is sent is ours.
    check(unsafe { caco_send(tensor.as_ptr(), c_int::try_from(number)?, &raw mut sent) }, "copy to the GPU")?;
    Ok(Sent(sent))
}

impl Sent {
    /// The tensor on the GPU. Kernels that are launched from now on run after the copy; the program does not wait.
    pub fn received(self) -> Result<Tensor> {
        let mut result = std::ptr::null_mut();
        // SAFETY: the call takes what is sent, and the new tensor is ours.
        unsafe {
            check(caco_receive(ManuallyDrop::new(self).0, &raw mut result), "copy to the GPU")?;
            Ok(Tensor::from_ptr(result))
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe { caco_drop_sent(self.0) }
    }
}

/// The tensor on `device`: itself if that is the CPU, otherwise sent and received.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor> {
    match device {
        Device::Cuda(number) => send(tensor, number)?.received(),
        _ => Ok(tensor.shallow_clone()),
    }
}

/// So many bytes of memory from which a GPU copies while the program computes. Reused when it has been freed and the copies
/// from it have ended.
pub fn pinned(count: usize) -> Result<Bytes> {
    let mut result = std::ptr::null_mut();
    // SAFETY: the new tensor is ours.
    let tensor = unsafe {
        check(caco_pinned(i64::try_from(count)?, &raw mut result), "memory for copies to the GPU")?;
        Tensor::from_ptr(result)
    };
    Ok(Bytes::new(Pinned { start: tensor.data_ptr().cast(), count, _tensor: tensor }))
}

struct Pinned {
    start: *mut u8,
    count: usize,
    /// Keeps the memory.
    _tensor: Tensor,
}

// SAFETY: the memory is nobody else's.
unsafe impl Send for Pinned {}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the tensor consists of so many bytes.
        unsafe { slice::from_raw_parts(self.start, self.count) }
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.start, self.count) }
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
