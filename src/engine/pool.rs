//! The resources that an executor hands out to stages: cores, GPUs, memory.

use super::gpu;
use caco_pipeline::policy::Policy;

/// Cores, GPUs and memory: all of an executor's, or those that are free.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// CPU cores.
    pub cpus: u32,
    /// GPUs, by number.
    pub gpus: Vec<u32>,
    /// Memory, GiB.
    pub memory_gib: f64,
}

/// The resources that a stage asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    cpus: u32,
    gpus: usize,
    memory_gib: f64,
}

/// The resources that a stage holds while it runs.
#[derive(Debug, Default)]
pub struct Allocation {
    /// CPU cores.
    pub cpus: u32,
    gpus: Vec<gpu::Claim>,
    memory_gib: f64,
}

impl Allocation {
    /// Cores alone, as an executor without GPUs of its own gives them.
    pub fn of_cpus(cpus: u32) -> Self {
        Allocation { cpus, ..Allocation::default() }
    }

    /// Its GPUs, by number.
    pub fn gpus(&self) -> Vec<u32> {
        self.gpus.iter().map(|claim| claim.gpu).collect()
    }
}

impl Pool {
    /// What a stage asks for, bounded by what the pool holds. `default` cores where its file does not say.
    pub fn request(&self, policy: &Policy, default: u32) -> Request {
        Request {
            cpus: policy.cpus.unwrap_or(default).clamp(1, self.cpus),
            gpus: (policy.gpus as usize).min(self.gpus.len()),
            memory_gib: policy.memory_gib.min(self.memory_gib),
        }
    }

    /// The part of the pool that a request keeps from other stages, 0 to 1: that of its scarcest resource.
    pub fn share(&self, request: Request) -> f64 {
        let part = |asked: f64, all: f64| if asked > 0.0 { asked / all } else { 0.0 };
        part(request.cpus.into(), self.cpus.into())
            .max(part(request.gpus as f64, self.gpus.len() as f64))
            .max(part(request.memory_gib, self.memory_gib))
    }

    /// Takes resources out of the pool. None: too few are free, or other runs hold the GPUs.
    pub fn allocate(&mut self, request: Request) -> Option<Allocation> {
        let Request { cpus, gpus, memory_gib } = request;
        if cpus > self.cpus || gpus > self.gpus.len() || memory_gib > self.memory_gib {
            return None;
        }
        let claims = if gpus == 0 { vec![] } else { gpu::claim(&self.gpus, gpus, &gpu::locks())? };
        self.cpus -= cpus;
        self.memory_gib -= memory_gib;
        self.gpus.retain(|gpu| !claims.iter().any(|claim| claim.gpu == *gpu));
        Some(Allocation { cpus, gpus: claims, memory_gib })
    }

    /// Puts an allocation back.
    pub fn release(&mut self, allocation: &Allocation) {
        self.cpus += allocation.cpus;
        self.memory_gib += allocation.memory_gib;
        self.gpus.extend(allocation.gpus());
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_not_free_until_it_is_released() {
        let all = Pool { cpus: 4, gpus: vec![], memory_gib: 8.0 };
        let policy = |cpus, memory_gib| Policy { cpus, memory_gib, ..Policy::default() };
        let (large, small) = (all.request(&policy(Some(3), 6.0), 1), all.request(&policy(None, 0.0), 2));
        assert_eq!((all.share(large), all.share(small)), (0.75, 0.5));
        let mut free = all.clone();
        let allocation = free.allocate(large).unwrap();
        assert!(free.allocate(small).is_none());
        free.release(&allocation);
        assert!(free.allocate(small).is_some());
        // A request is bounded by what the pool holds.
        assert!(all.clone().allocate(all.request(&policy(Some(64), 100.0), 1)).is_some());
    }
}
