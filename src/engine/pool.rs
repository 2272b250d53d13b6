//! The resources that an executor hands out to stages: cores, GPUs, memory.

use super::gpu::{self, Gpu};
use caco_pipeline::policy::Policy;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cores, GPUs and memory: all of an executor's, or those that are free.
#[derive(Clone, Debug)]
pub struct Pool {
    /// CPU cores.
    pub cpus: u32,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// Memory, MiB. Whole numbers, so that what is given back is exactly what was taken.
    pub memory_mib: u64,
}

/// The resources that a stage asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    cpus: u32,
    gpus: usize,
    memory_mib: u64,
}

/// What the program of a stage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// CPU cores, if the stage's file does not say.
    pub cpus: u32,
    /// GPUs. Whatever its file says, a program that computes on the CPU takes none.
    pub gpus: u32,
}

impl Pool {
    /// What a stage asks for, bounded by what the pool holds.
    pub fn request(&self, policy: &Policy, usual: Usual) -> Request {
        Request {
            cpus: policy.cpus.unwrap_or(usual.cpus).clamp(1, self.cpus.max(1)),
            gpus: (usual.gpus as usize).min(self.gpus.len()),
            memory_mib: ((policy.memory_gib * 1024.0).ceil() as u64).min(self.memory_mib),
        }
    }

    /// The part of the pool that a request keeps from other stages, 0 to 1: that of its scarcest resource.
    pub fn share(&self, request: Request) -> f64 {
        let part = |asked: f64, all: f64| if asked > 0.0 { asked / all } else { 0.0 };
        part(request.cpus.into(), self.cpus.into())
            .max(part(request.gpus as f64, self.gpus.len() as f64))
            .max(part(request.memory_mib as f64, self.memory_mib as f64))
    }
}

/// The part of a pool that is free.
#[derive(Clone, Debug)]
pub(crate) struct Free(Arc<Mutex<Pool>>);

impl Free {
    /// All of a pool.
    pub fn all(pool: Pool) -> Self {
        Free(Arc::new(Mutex::new(pool)))
    }

    /// How many cores are free.
    pub fn cpus(&self) -> u32 {
        self.lock().cpus
    }

    /// Takes resources. None: too few are free, or other runs hold the GPUs.
    pub fn allocate(&self, request: Request) -> Option<Allocation> {
        let Request { cpus, gpus, memory_mib } = request;
        let mut free = self.lock();
        if cpus > free.cpus || gpus > free.gpus.len() || memory_mib > free.memory_mib {
            return None;
        }
        let gpus = if gpus == 0 { vec![] } else { gpu::claim(&free.gpus, gpus, &gpu::locks())? };
        free.cpus -= cpus;
        free.memory_mib -= memory_mib;
        free.gpus.retain(|gpu| !gpus.iter().any(|claim| claim.gpu == *gpu));
        Some(Allocation { cpus, gpus, memory_mib, free: Some(self.clone()) })
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resources that a stage holds while it runs. They are free again when this is dropped.
#[derive(Debug)]
pub struct Allocation {
    /// CPU cores.
    pub cpus: u32,
    gpus: Vec<gpu::Claim>,
    memory_mib: u64,
    free: Option<Free>,
}

impl Allocation {
    /// An allocation without a pool, for an executor that queues what it cannot start.
    pub fn of_cpus(cpus: u32) -> Self {
        Allocation { cpus, gpus: vec![], memory_mib: 0, free: None }
    }

    /// Its GPUs.
    pub fn gpus(&self) -> Vec<Gpu> {
        self.gpus.iter().map(|claim| claim.gpu.clone()).collect()
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let gpus = self.gpus();
        // Another run, or this one, may claim them from now on.
        self.gpus.clear();
        let Some(free) = &self.free else { return };
        let mut free = free.lock();
        free.cpus += self.cpus;
        free.memory_mib += self.memory_mib;
        free.gpus.extend(gpus);
        free.gpus.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_free_again_when_it_is_dropped() {
        let all = Pool { cpus: 4, gpus: vec![], memory_mib: 8 << 10 };
        let policy = |cpus, memory_gib| Policy { cpus, memory_gib, ..Policy::default() };
        let request = |policy, cpus| all.request(&policy, Usual { cpus, gpus: 0 });
        let (large, small) = (request(policy(Some(3), 6.0), 1), request(policy(None, 0.0), 2));
        assert_eq!((all.share(large), all.share(small)), (0.75, 0.5));
        let free = Free::all(all.clone());
        let allocation = free.allocate(large).unwrap();
        assert!(free.allocate(small).is_none());
        drop(allocation);
        assert!(free.allocate(small).is_some());
        // A request is bounded by what the pool holds.
        assert!(free.allocate(request(policy(Some(64), 100.0), 1)).is_some());
    }

    #[test]
    fn memory_is_counted_exactly() {
        let all = Pool { cpus: 4, gpus: vec![], memory_mib: 31_949 };
        let policy = |memory_gib| Policy { cpus: Some(1), memory_gib, ..Policy::default() };
        let request = |gib| all.request(&policy(gib), Usual { cpus: 1, gpus: 0 });
        let free = Free::all(all.clone());
        for (a, b) in [(3.3, 10.1), (0.7, 0.1)] {
            let held = [a, b].map(|gib| free.allocate(request(gib)).unwrap());
            drop(held);
        }
        assert!(free.allocate(request(1e9)).is_some(), "all of it is free again");
    }

    #[test]
    fn the_program_decides_the_gpus_and_the_file_the_cores() {
        let all = Pool { cpus: 8, gpus: vec![Gpu::Number(0), Gpu::Number(1)], memory_mib: 0 };
        let asked = |cpus, gpus| {
            let policy = Policy { cpus, gpus: Some(1), ..Policy::default() };
            let request = all.request(&policy, Usual { cpus: 4, gpus });
            (request.cpus, request.gpus)
        };
        assert_eq!([asked(None, 0), asked(Some(2), 1), asked(Some(9), 9)], [(4, 0), (2, 1), (8, 2)]);
    }
}
