//! Selects the device and sets up libtorch for a stage: threads, determinism, and CUDA if there is a GPU.
//!
//! The program is linked only against the CPU part of libtorch. The CUDA part is `libtorch_cuda.so`, the same file as
//! in any PyTorch of this version; loaded before the first tensor is created, it registers itself.

use crate::bridge;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, Once},
};
use tch::{Cuda, Device};

/// Environment variable for the folder that contains `libtorch_cuda.so`.
pub const CUDA_FOLDER: &str = "CACO_LIBTORCH_CUDA";

static OPENED: Mutex<Option<(Device, usize)>> = Mutex::new(None);

/// Sets up libtorch and returns the device called `name`: `auto` (the first GPU, or the CPU without one), `cpu` or
/// `cuda:N`. Must be called before the first tensor is created. `threads` is the number of threads per operation.
pub fn open(name: &str, threads: usize) -> Result<Device> {
    let device = choose(name)?;
    static FIRST: Once = Once::new();
    // libtorch allows this call only once.
    FIRST.call_once(|| tch::set_num_interop_threads(1));
    tch::set_num_threads(i32::try_from(threads.max(1)).context("number of threads")?);
    bridge::deterministic(true)?;
    bridge::keep_memory()?;
    *OPENED.lock().unwrap_or_else(|e| e.into_inner()) = Some((device, threads.max(1)));
    Ok(device)
}

fn choose(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        // Loading takes a second and a gigabyte, so it is done only if there is a driver.
        "auto" if !Path::new("/dev/nvidiactl").exists() => Ok(Device::Cpu),
        "auto" => match load_cuda() {
            Ok(()) if Cuda::device_count() > 0 => Ok(Device::Cuda(0)),
            _ => Ok(Device::Cpu),
        },
        _ => {
            let number = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
            let Some(number) = number else { bail!("device '{name}' is not one of auto, cpu and cuda:N") };
            load_cuda().with_context(|| format!("device '{name}' needs the CUDA part of libtorch"))?;
            let count = Cuda::device_count();
            ensure!((number as i64) < count, "device '{name}' does not exist: libtorch sees {count} GPU(s)");
            Ok(Device::Cuda(number))
        }
    }
}

/// Loads `libtorch_cuda.so` once: from the folder in [`CUDA_FOLDER`], from the folder of `libtorch_cpu.so`, or from
/// wherever the dynamic linker finds it.
fn load_cuda() -> Result<()> {
    static LOADED: Mutex<bool> = Mutex::new(false);
    let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    if *loaded || tch::utils::has_cuda() {
        return Ok(());
    }
    const NAME: &str = "libtorch_cuda.so";
    let named = std::env::var_os(CUDA_FOLDER).map(|folder| PathBuf::from(folder).join(NAME));
    let beside = mapped("libtorch_cpu.so").map(|cpu| cpu.with_file_name(NAME)).filter(|path| path.exists());
    let candidates = match named {
        Some(named) => vec![named],
        None => beside.into_iter().chain([PathBuf::from(NAME)]).collect(),
    };
    let mut failures = Vec::new();
    for candidate in &candidates {
        match dlopen(candidate) {
            Ok(()) => {
                *loaded = true;
                return Ok(());
            }
            Err(failure) => failures.push(failure),
        }
    }
    bail!(
        "{}. Install PyTorch {} with CUDA and set {CUDA_FOLDER} to its torch/lib folder",
        failures.join("; "),
        bridge::version(),
    )
}

/// The file of a loaded library with this name.
fn mapped(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.ends_with(name))?;
    Some(path.into())
}

fn dlopen(path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a terminated string; the error is copied before the next call.
    unsafe {
        if libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Err(CStr::from_ptr(libc::dlerror()).to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The determinism class of the last opened device: two runs in the same class give the same bits. It consists of the
/// CPU vendor and the instruction sets by which kernels are chosen, the threads per operation, the libtorch version,
/// and the GPU name.
pub fn class() -> Value {
    let opened = *OPENED.lock().unwrap_or_else(|e| e.into_inner());
    let (device, threads) = opened.unwrap_or((Device::Cpu, tch::get_num_threads() as usize));
    let gpu = match device {
        Device::Cuda(number) => gpu_name(number).unwrap_or_else(|| "unknown".into()),
        _ => return json!({"cpu": cpu(), "threads": threads, "libtorch": bridge::version()}),
    };
    json!({"cpu": cpu(), "threads": threads, "libtorch": bridge::version(), "gpu": gpu})
}

/// Vendor and instruction sets, such as `AuthenticAMD avx2 fma avx512f avx512_bf16`.
fn cpu() -> String {
    const SETS: [&str; 12] = [
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "asimd",
        "bf16",
        "sve",
    ];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |names: [&str; 2]| {
        let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let vendor = field(["vendor_id", "CPU implementer"]);
    let flags: Vec<&str> = field(["flags", "Features"]).split_whitespace().collect();
    let present = SETS.into_iter().filter(|set| flags.contains(set));
    std::iter::once(vendor).chain(present).collect::<Vec<_>>().join(" ")
}

/// The name of a GPU, from the driver.
fn gpu_name(number: usize) -> Option<String> {
    // SAFETY: the signatures are those of cuda.h; the name is terminated and at most as long as given.
    unsafe {
        let driver = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        let symbol = |name: &CStr| -> Option<*mut c_void> {
            let symbol = if driver.is_null() { driver } else { libc::dlsym(driver, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let init: extern "C" fn(u32) -> c_int = std::mem::transmute(symbol(c"cuInit")?);
        let get: extern "C" fn(*mut c_int, c_int) -> c_int = std::mem::transmute(symbol(c"cuDeviceGet")?);
        let name: extern "C" fn(*mut c_char, c_int, c_int) -> c_int = std::mem::transmute(symbol(c"cuDeviceGetName")?);
        let (mut device, mut text) = (0, [0 as c_char; 256]);
        let well = init(0) == 0
            && get(&raw mut device, c_int::try_from(number).ok()?) == 0
            && name(text.as_mut_ptr(), text.len() as c_int, device) == 0;
        well.then(|| CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(choose("cpu").unwrap(), Device::Cpu);
        let error = choose("gpu").unwrap_err().to_string();
        assert!(error.contains("'gpu' is not one of auto, cpu and cuda:N"), "{error}");
    }

    #[test]
    fn a_class_names_threads_and_library() {
        open("cpu", 2).unwrap();
        let class = class();
        assert_eq!(class["threads"], 2);
        assert_eq!(class["libtorch"], "2.11.0");
        assert!(class["cpu"].as_str().unwrap().contains(' '), "{class}");
    }
}
