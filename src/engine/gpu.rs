//! The GPUs of this machine. A stage claims the ones it was given, so that no other run on the machine allocates them too.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// A GPU, as CUDA_VISIBLE_DEVICES names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Gpu {
    /// Its number on the machine.
    Number(u32),
    /// The name of a GPU or of a part of one, such as `GPU-8932f937-d72c-4106-c12f-20bd9faed9f6`.
    Name(String),
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Gpu::Number(number) => write!(f, "{number}"),
            Gpu::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Gpu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.parse() {
            Ok(number) => Ok(Gpu::Number(number)),
            Err(_) if ["GPU-", "MIG-"].iter().any(|start| text.starts_with(start)) => Ok(Gpu::Name(text.into())),
            Err(_) => Err("give a number, or a name that begins with GPU- or MIG-".into()),
        }
    }
}

/// An exclusive claim on a GPU, held until dropped.
#[derive(Debug)]
pub struct Claim {
    /// The GPU.
    pub gpu: Gpu,
    /// A lock held by the kernel, so a runner that dies leaves no stale claim.
    _lock: File,
}

/// The folder of the locks, shared by all users and stores of a machine.
pub fn locks() -> PathBuf {
    std::env::temp_dir().join("caco-gpus")
}

/// Claims the first `wanted` available GPUs in `free`. `None` if there are not enough.
pub fn claim(free: &[Gpu], wanted: usize, locks: &Path) -> Option<Vec<Claim>> {
    let claims: Vec<Claim> = free.iter().filter_map(|gpu| claim_one(gpu, locks)).take(wanted).collect();
    (claims.len() == wanted).then_some(claims)
}

fn claim_one(gpu: &Gpu, locks: &Path) -> Option<Claim> {
    // Names of parts of a GPU may contain slashes.
    let path = locks.join(gpu.to_string().replace('/', "_"));
    let file = File::open(&path).or_else(|_| {
        fs::create_dir_all(locks)?;
        // Other users' runs must be able to open it as well, whichever user created it.
        let _ = fs::set_permissions(locks, Permissions::from_mode(0o1777));
        File::create(&path)
    });
    let file = file.ok()?;
    file.try_lock().ok()?;
    Some(Claim { gpu: gpu.clone(), _lock: file })
}

/// The machine's NVIDIA GPUs, restricted to CUDA_VISIBLE_DEVICES if it is set.
pub fn visible() -> Vec<Gpu> {
    let there = there(Path::new("/proc/driver/nvidia/gpus"), Path::new("/dev"));
    chosen(there, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// Number of GPUs: the driver's list, or, in a container that hides it, the device files `nvidia0`, `nvidia1`, ….
fn there(driver: &Path, devices: &Path) -> u32 {
    if let Ok(listed) = fs::read_dir(driver) {
        return listed.count() as u32;
    }
    let is_gpu = |name: &str| name.strip_prefix("nvidia").is_some_and(|rest| rest.parse::<u32>().is_ok());
    let files = fs::read_dir(devices).into_iter().flatten().flatten();
    files.filter(|file| file.file_name().to_str().is_some_and(is_gpu)).count() as u32
}

/// The GPUs of a list as CUDA reads it: it ends before the first number that is none of the GPUs that are there.
fn chosen(there: u32, list: Option<&str>) -> Vec<Gpu> {
    let Some(list) = list else { return (0..there).map(Gpu::Number).collect() };
    // CUDA ignores what follows a word that it does not know.
    let gpus = list.split(',').map_while(|word| word.parse().ok());
    let is_there = |gpu: &Gpu| match gpu {
        Gpu::Number(number) => *number < there,
        Gpu::Name(_) => there > 0,
    };
    gpus.take_while(is_there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u32]) -> Vec<Gpu> {
        numbers.iter().copied().map(Gpu::Number).collect()
    }

    #[test]
    fn a_gpu_is_claimed_once_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let locks = folder.path().join("locks");
        let gpus = |claims: &[Claim]| claims.iter().map(|claim| claim.gpu.clone()).collect::<Vec<_>>();
        let first = claim(&numbers(&[0, 1, 2]), 2, &locks).unwrap();
        assert_eq!(gpus(&first), numbers(&[0, 1]));
        assert!(claim(&numbers(&[0, 1, 2]), 2, &locks).is_none());
        assert_eq!(gpus(&claim(&numbers(&[0, 1, 2]), 1, &locks).unwrap()), numbers(&[2]));
        drop(first);
        assert_eq!(gpus(&claim(&numbers(&[1, 2]), 2, &locks).unwrap()), numbers(&[1, 2]));
        assert!(claim(&[], 0, &locks).unwrap().is_empty());
        let part = ["MIG-GPU-8932f937/1/0".parse().unwrap()];
        let held = claim(&part, 1, &locks).unwrap();
        assert!(gpus(&held) == part && claim(&part, 1, &locks).is_none());
    }

    #[test]
    fn gpus_are_counted_by_the_driver_or_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let (driver, devices) = (folder.path().join("gpus"), folder.path().join("dev"));
        fs::create_dir(&devices).unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            File::create(devices.join(name)).unwrap();
        }
        assert_eq!(there(&driver, &devices), 2);
        fs::create_dir_all(driver.join("0000:01:00.0")).unwrap();
        assert_eq!(there(&driver, &devices), 1);
    }

    #[test]
    fn a_list_is_read_as_cuda_reads_it() {
        let names = "GPU-8932f937,MIG-1a2b";
        for wrong in ["", "all", "0-3", "O", "-1"] {
            assert!(wrong.parse::<Gpu>().is_err(), "{wrong}");
        }
        assert_eq!(chosen(3, None), numbers(&[0, 1, 2]));
        assert_eq!(chosen(3, Some("2, 0,7,1")), numbers(&[2, 0]));
        assert_eq!(chosen(3, Some(names)).iter().map(Gpu::to_string).collect::<Vec<_>>().join(","), names);
        assert!(
            chosen(3, Some("")).is_empty() && chosen(3, Some("-1")).is_empty() && chosen(0, Some(names)).is_empty()
        );
        let text = serde_json::to_string(&[Gpu::Number(3), names.parse().unwrap()]).unwrap();
        assert_eq!(text, format!("[3,{names:?}]"));
    }
}
