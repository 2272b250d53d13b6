//! The NVIDIA driver, `libcuda.so.1`, asked without libtorch.

use anyhow::{Context as _, Result, bail};
use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
};

/// The driver, initialised.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    library: *mut c_void,
    devices: c_int,
}

/// A version of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub c_int);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// What the driver knows of a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Its memory, bytes.
    pub memory: u64,
    /// Number of its multiprocessors, by which libtorch and cuDNN choose kernels.
    pub multiprocessors: u32,
}

/// There is no driver on this machine.
#[derive(Debug, thiserror::Error)]
#[error("there is no NVIDIA driver: libcuda.so.1 is not found")]
pub struct Absent;

/// CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT of cuda.h.
const MULTIPROCESSORS: c_int = 16;
/// CUDA_ERROR_NO_DEVICE of cuda.h.
const NO_DEVICE: c_int = 100;

impl Driver {
    /// Loads and initialises the driver. [`Absent`] if there is none.
    pub fn open() -> Result<Driver> {
        // SAFETY: the names are terminated and the signatures those of cuda.h.
        unsafe {
            let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
            if library.is_null() {
                return Err(Absent.into());
            }
            let mut driver = Driver { library, devices: 0 };
            let init: extern "C" fn(c_uint) -> c_int = std::mem::transmute(driver.symbol(c"cuInit")?);
            match init(0) {
                0 => {}
                NO_DEVICE => return Ok(driver),
                error => bail!("the NVIDIA driver does not start: cuInit fails with error {error}"),
            }
            let count: extern "C" fn(*mut c_int) -> c_int = std::mem::transmute(driver.symbol(c"cuDeviceGetCount")?);
            let error = count(&raw mut driver.devices);
            anyhow::ensure!(error == 0, "the NVIDIA driver does not count its GPUs: error {error}");
            Ok(driver)
        }
    }

    fn symbol(&self, name: &CStr) -> Result<*mut c_void> {
        // SAFETY: the library is loaded and never unloaded; the name is terminated.
        let symbol = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        if symbol.is_null() { None } else { Some(symbol) }.with_context(|| format!("the NVIDIA driver lacks {name:?}"))
    }

    /// Number of GPUs that this process may use.
    pub fn devices(&self) -> usize {
        self.devices as usize
    }

    /// The newest version of CUDA that it supports.
    pub fn version(&self) -> Result<Version> {
        let mut version = 0;
        // SAFETY: as in cuda.h.
        let error = unsafe {
            let get: extern "C" fn(*mut c_int) -> c_int = std::mem::transmute(self.symbol(c"cuDriverGetVersion")?);
            get(&raw mut version)
        };
        anyhow::ensure!(error == 0, "the NVIDIA driver does not give its version: error {error}");
        Ok(Version(version))
    }

    /// What it knows of GPU `number`, counted among those that this process may use.
    pub fn gpu(&self, number: usize) -> Result<Gpu> {
        let number = c_int::try_from(number)?;
        let (mut device, mut memory, mut multiprocessors, mut name) = (0, 0usize, 0, [0 as c_char; 256]);
        // SAFETY: the signatures are those of cuda.h; the name is terminated and at most as long as given.
        unsafe {
            let get: extern "C" fn(*mut c_int, c_int) -> c_int = std::mem::transmute(self.symbol(c"cuDeviceGet")?);
            let named: extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
                std::mem::transmute(self.symbol(c"cuDeviceGetName")?);
            let total: extern "C" fn(*mut usize, c_int) -> c_int =
                std::mem::transmute(self.symbol(c"cuDeviceTotalMem_v2")?);
            let attribute: extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
                std::mem::transmute(self.symbol(c"cuDeviceGetAttribute")?);
            let well = get(&raw mut device, number) == 0
                && named(name.as_mut_ptr(), name.len() as c_int, device) == 0
                && total(&raw mut memory, device) == 0
                && attribute(&raw mut multiprocessors, MULTIPROCESSORS, device) == 0;
            anyhow::ensure!(well, "the NVIDIA driver does not describe GPU {number}");
            let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
            Ok(Gpu { name, memory: memory as u64, multiprocessors: multiprocessors as u32 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_cuda() {
        assert_eq!([Version(13000), Version(12080)].map(|version| version.to_string()), ["13.0", "12.8"]);
    }
}
