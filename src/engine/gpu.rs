//! The GPUs of this machine, by number. A stage claims the ones it was given, so that no other run on the machine
//! allocates them too.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// An exclusive claim on a GPU, held until dropped.
#[derive(Debug)]
pub struct Claim {
    /// Its number.
    pub gpu: u32,
    /// A lock held by the kernel, so a runner that dies leaves no stale claim.
    _lock: File,
}

/// The folder of the locks, shared by all users and stores of a machine.
pub fn locks() -> PathBuf {
    std::env::temp_dir().join("caco-gpus")
}

/// Claims the first `wanted` available GPUs in `free`. `None` if there are not enough.
pub fn claim(free: &[u32], wanted: usize, locks: &Path) -> Option<Vec<Claim>> {
    let claims: Vec<Claim> = free.iter().filter_map(|gpu| claim_one(*gpu, locks)).take(wanted).collect();
    (claims.len() == wanted).then_some(claims)
}

fn claim_one(gpu: u32, locks: &Path) -> Option<Claim> {
    let path = locks.join(gpu.to_string());
    let file = File::open(&path).or_else(|_| {
        fs::create_dir_all(locks)?;
        // Other users' runs must be able to open it as well, whichever user created it.
        let _ = fs::set_permissions(locks, Permissions::from_mode(0o1777));
        File::create(&path)
    });
    let file = file.ok()?;
    file.try_lock().ok()?;
    Some(Claim { gpu, _lock: file })
}

/// The numbers of the machine's NVIDIA GPUs, restricted to CUDA_VISIBLE_DEVICES if it is set.
pub fn visible() -> Vec<u32> {
    let there = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count) as u32;
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) => list.split(',').map_while(|word| word.trim().parse().ok()).filter(|gpu| *gpu < there).collect(),
        Err(_) => (0..there).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_claimed_once_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let locks = folder.path().join("locks");
        let gpus = |claims: &[Claim]| claims.iter().map(|claim| claim.gpu).collect::<Vec<_>>();
        let first = claim(&[0, 1, 2], 2, &locks).unwrap();
        assert_eq!(gpus(&first), [0, 1]);
        assert!(claim(&[0, 1, 2], 2, &locks).is_none());
        assert_eq!(gpus(&claim(&[0, 1, 2], 1, &locks).unwrap()), [2]);
        drop(first);
        assert_eq!(gpus(&claim(&[1, 2], 2, &locks).unwrap()), [1, 2]);
        assert!(claim(&[], 0, &locks).unwrap().is_empty());
    }
}
