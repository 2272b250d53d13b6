//! The CUDA half of libtorch. The program is linked only against the CPU half; `libtorch_cuda.so`, the same file as in
//! any PyTorch of this version, registers itself when it is loaded.
//!
//! It must be loaded before libtorch is first asked whether there is CUDA: libtorch keeps its first answer.

use crate::bridge;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::{CStr, CString, c_int},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Mutex,
};
use tch::Cuda;

/// Environment variable for the folder that contains `libtorch_cuda.so`.
pub const FOLDER: &str = "CACO_LIBTORCH_CUDA";

const NAME: &str = "libtorch_cuda.so";

/// The loaded CUDA half.
#[derive(Clone, Debug, PartialEq)]
pub struct Half {
    /// Its file.
    pub file: PathBuf,
    /// The PyTorch it belongs to, such as `2.11.0+cu130`, if its folder says so.
    pub torch: Option<String>,
}

/// Loads the CUDA half once: from the folder in [`FOLDER`], from the folder of `libtorch_cpu.so`, or from wherever the
/// dynamic linker finds it.
pub fn load() -> Result<Half> {
    static LOADED: Mutex<Option<Half>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(half) = &*loaded {
        return Ok(half.clone());
    }
    // By LD_PRELOAD, or because the program is linked to it. libtorch itself must not be asked yet.
    let half = if dlopen(Path::new(NAME), libc::RTLD_NOLOAD).is_ok() { named()? } else { find()? };
    *loaded = Some(half.clone());
    Ok(half)
}

/// Number of GPUs that libtorch sees. The half must be loaded.
pub fn devices() -> usize {
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

fn find() -> Result<Half> {
    let beside = mapped("libtorch_cpu.so").map(|cpu| cpu.with_file_name(NAME)).filter(|path| path.exists());
    let candidates = match std::env::var_os(FOLDER) {
        Some(folder) => vec![PathBuf::from(folder).join(NAME)],
        None => beside.into_iter().chain([PathBuf::from(NAME)]).collect(),
    };
    let mut failures = Vec::new();
    for candidate in &candidates {
        match check(candidate).and_then(|()| dlopen(candidate, 0)) {
            Ok(()) => return named(),
            Err(failure) => failures.push(format!("{failure:#}")),
        }
    }
    bail!("{}; {}", failures.join(", "), way_out())
}

/// The loaded half. An error if it belongs to another version: loaded by name, its folder was not known before.
fn named() -> Result<Half> {
    let file = mapped(NAME).unwrap_or_else(|| NAME.into());
    check(&file)?;
    let torch = torch_of(&file).map(|(version, _)| version);
    Ok(Half { file, torch })
}

fn way_out() -> String {
    let (ours, runtime) = (bridge::version(), runtime().unwrap_or_default());
    let of = if runtime.is_empty() { String::new() } else { format!(" for CUDA {runtime}") };
    format!("install PyTorch {ours}{of} and set {FOLDER} to its folder torch/lib")
}

/// Compares the version of PyTorch in whose folder a half is with that of the CPU half. Another build may lack symbols,
/// or have the same ones with another meaning.
fn check(half: &Path) -> Result<()> {
    let Some((theirs, cuda)) = torch_of(half) else { return Ok(()) };
    let ours = bridge::version();
    ensure!(
        theirs.split('+').next() == Some(&*ours),
        "{} belongs to PyTorch {theirs}, and this program to {ours}",
        half.display()
    );
    let major = |version: &str| version.split('.').next().map(String::from);
    if let (Some(cuda), Some(runtime)) = (cuda.as_deref().and_then(major), runtime()) {
        ensure!(cuda == runtime, "{} is built for CUDA {cuda}, and libtorch_cpu.so for CUDA {runtime}", half.display());
    }
    Ok(())
}

/// The versions of PyTorch and CUDA in `version.py` of the package that contains the half.
fn torch_of(half: &Path) -> Option<(String, Option<String>)> {
    versions(&fs::read_to_string(half.parent()?.parent()?.join("version.py")).ok()?)
}

fn versions(text: &str) -> Option<(String, Option<String>)> {
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split([':', '=', ' ']).next() == Some(name))?;
        Some(line.split_once('=')?.1.trim().trim_matches(['\'', '"']).to_string())
    };
    Some((value("__version__")?, value("cuda").filter(|cuda| cuda != "None")))
}

/// The version of the CUDA runtime that the CPU half was loaded with.
fn runtime() -> Option<String> {
    const PREFIX: &str = "libcudart.so.";
    let file = mapped_as(PREFIX)?;
    let version = file.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    version.split('.').next().map(String::from)
}

/// The file of a loaded library with this name.
fn mapped(name: &str) -> Option<PathBuf> {
    mapped_as(name).filter(|path| path.ends_with(name))
}

/// The file of a loaded library whose name begins so.
fn mapped_as(prefix: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    // Six columns; the path, which may contain spaces, is the rest.
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    maps.lines().filter_map(path).find(named)
}

fn dlopen(path: &Path, flags: c_int) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes()).context("the path of a library")?;
    // SAFETY: a terminated string; the error is copied before the next call.
    unsafe {
        if libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL | flags).is_null() {
            let error = libc::dlerror();
            ensure!(!error.is_null(), "{} is not loaded", path.display());
            bail!("{}", CStr::from_ptr(error).to_string_lossy());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_package() {
        let text = "from typing import Optional\n__all__ = ['__version__', 'cuda']\n__version__ = '2.11.0+cu130'\n\
                    debug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n";
        assert_eq!(versions(text), Some(("2.11.0+cu130".into(), Some("13.0".into()))));
        assert_eq!(versions("__version__ = '2.11.0'\ncuda = None\n"), Some(("2.11.0".into(), None)));
        assert_eq!(versions("nothing"), None);
    }

    #[test]
    fn a_half_of_another_version_is_refused() {
        let package = tempfile::tempdir().unwrap();
        let half = package.path().join("lib").join(NAME);
        let check = |version: &str| {
            fs::write(package.path().join("version.py"), version).unwrap();
            check(&half).map_err(|error| error.to_string())
        };
        assert_eq!(check(&format!("__version__ = '{}+cu130'", bridge::version())), Ok(()));
        let error = check("__version__ = '2.10.0+cu130'").unwrap_err();
        assert!(error.contains("belongs to PyTorch 2.10.0+cu130, and this program to 2.11.0"), "{error}");
        let error = check("__version__ = '2.11.0+cu126'\ncuda: Optional[str] = '12.6'").unwrap_err();
        assert!(error.contains("is built for CUDA 12, and libtorch_cpu.so for CUDA 13"), "{error}");
    }
}
