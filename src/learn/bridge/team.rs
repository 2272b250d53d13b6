//! Processes that train together: the Rust part of team.cpp. Each holds neighbouring shards of every batch.

use super::{check, pointers, receive};
use anyhow::{Context as _, Result};
use std::ffi::{CString, c_char};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn caco_team_open(size: usize, port: *mut u16) -> *mut c_char;
    fn caco_team_join(
        port: u16,
        nonce: *const c_char,
        build: *const c_char,
        rank: usize,
        size: usize,
        gpu: i32,
    ) -> *mut c_char;
    fn caco_team_size() -> usize;
    fn caco_team_rank() -> usize;
    fn caco_team_lost() -> bool;
    fn caco_team_seconds() -> f64;
    fn caco_team_sum(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    fn caco_team_sum_partial() -> *mut c_char;
    fn caco_team_gather(tensors: *const *const C_tensor, count: usize, results: *mut *mut C_tensor) -> *mut c_char;
    fn caco_team_most(value: *mut f64) -> *mut c_char;
}

/// Opens the place where `size` processes of this machine meet. Returns its port. Only the first process may call it.
pub fn open(size: usize) -> Result<u16> {
    let mut port = 0;
    // SAFETY: the port is valid for the length of the call.
    check(unsafe { caco_team_open(size, &raw mut port) }, "cannot open a port for the other processes")?;
    Ok(port)
}

/// Where a process joins a team.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The port of this machine.
    pub port: u16,
    /// A word that only the processes of this team know.
    pub nonce: &'a str,
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// What identifies the build of the program, which must be the same.
    pub build: &'a str,
}

/// Waits until all processes that were given this place are there; from then on they are a team. They exchange what is on the
/// host by Gloo, and what is on GPUs, of which each has its own, by NCCL.
pub fn join(place: &Place, device: Device) -> Result<()> {
    let &Place { port, nonce, rank, size, build } = place;
    let text = |text: &str| CString::new(text).context("a word of the team has a zero");
    let (nonce, build) = (text(nonce)?, text(build)?);
    let gpu = match device {
        Device::Cuda(number) => i32::try_from(number).context("the number of a GPU")?,
        _ => -1,
    };
    // SAFETY: both words live through the call.
    let error = unsafe { caco_team_join(port, nonce.as_ptr(), build.as_ptr(), rank, size, gpu) };
    check(error, "the processes cannot connect")
}

/// Number of processes; 1 without a team.
pub fn size() -> usize {
    // SAFETY: no pointers.
    unsafe { caco_team_size() }
}

/// Number of this process, from 0.
pub fn rank() -> usize {
    // SAFETY: no pointers.
    unsafe { caco_team_rank() }
}

/// Whether an exchange has failed because another process ended. The error that came of it says only that.
pub fn is_lost() -> bool {
    // SAFETY: no pointers.
    unsafe { caco_team_lost() }
}

/// Seconds that this process has spent in exchanges, without those between GPUs.
pub fn seconds() -> f64 {
    // SAFETY: no pointers.
    unsafe { caco_team_seconds() }
}

/// Adds up the tensors of all processes, nearest neighbours first: each becomes the sum.
pub fn sum(tensors: &[Tensor]) -> Result<()> {
    // SAFETY: all tensors live through the call.
    check(unsafe { caco_team_sum(pointers(tensors).as_ptr(), tensors.len()) }, "sum over processes")
}

/// Completes the gradients of the weights of a backward pass, in which layers have added up only this process's shards.
pub fn sum_partial() -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { caco_team_sum_partial() }, "sum of gradients over processes")
}

/// Every tensor with those of the other processes, along the first dimension, in the order of the processes.
pub fn gather(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    // SAFETY: all tensors live through the call.
    receive(tensors.len(), "tensors of all processes", |results| unsafe {
        caco_team_gather(pointers(tensors).as_ptr(), tensors.len(), results)
    })
}

/// Whether `flag` is set in any of the processes.
pub fn any(flag: bool) -> Result<bool> {
    let mut value = f64::from(u8::from(flag));
    // SAFETY: the value is valid for the length of the call.
    check(unsafe { caco_team_most(&raw mut value) }, "a flag of all processes")?;
    Ok(value > 0.0)
}
