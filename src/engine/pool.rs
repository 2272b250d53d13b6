//! What of a machine a run hands out to its stages: cores, GPUs, memory. It knows no stage.

use super::gpu;
use caco_pipeline::policy::Policy;

/// Cores, GPUs and memory, all or what is free of them.
#[derive(Clone, Debug)]
pub struct Pool {
    /// CPU cores.
    pub cpus: u32,
    /// GPUs, by number.
    pub gpus: Vec<u32>,
    /// Memory, GiB.
    pub memory_gib: f64,
}

/// How much a stage takes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    cpus: u32,
    gpus: usize,
    memory_gib: f64,
}

/// What a stage is given.
#[derive(Debug)]
pub struct Room {
    /// CPU cores.
    pub cpus: u32,
    gpus: Vec<gpu::Claim>,
    memory_gib: f64,
}

impl Room {
    /// Its GPUs, by number.
    pub fn gpus(&self) -> Vec<u32> {
        self.gpus.iter().map(|claim| claim.gpu).collect()
    }
}

impl Pool {
    /// What a stage takes of this, as far as there is so much. `usual` cores are taken where its file says nothing.
    pub fn wanted(&self, policy: &Policy, usual: u32) -> Wanted {
        Wanted {
            cpus: policy.cpus.unwrap_or(usual).clamp(1, self.cpus),
            gpus: (policy.gpus as usize).min(self.gpus.len()),
            memory_gib: policy.memory_gib.min(self.memory_gib),
        }
    }

    /// The part of this that a stage keeps from others, 0 to 1: of what it takes, the scarcest.
    pub fn share(&self, wanted: Wanted) -> f64 {
        let part = |wanted: f64, all: f64| if wanted > 0.0 { wanted / all } else { 0.0 };
        part(wanted.cpus.into(), self.cpus.into())
            .max(part(wanted.gpus as f64, self.gpus.len() as f64))
            .max(part(wanted.memory_gib, self.memory_gib))
    }

    /// Room for a stage. None: there is not enough, or other runs hold the GPUs.
    pub fn room(&self, wanted: Wanted) -> Option<Room> {
        let Wanted { cpus, gpus, memory_gib } = wanted;
        if cpus > self.cpus || gpus > self.gpus.len() || memory_gib > self.memory_gib {
            return None;
        }
        let gpus = if gpus == 0 { vec![] } else { gpu::claim(&self.gpus, gpus, &gpu::locks())? };
        Some(Room { cpus, gpus, memory_gib })
    }

    /// Takes it out.
    pub fn take(&mut self, room: &Room) {
        self.cpus -= room.cpus;
        self.memory_gib -= room.memory_gib;
        let gpus = room.gpus();
        self.gpus.retain(|gpu| !gpus.contains(gpu));
    }

    /// Puts it back.
    pub fn give_back(&mut self, room: &Room) {
        self.cpus += room.cpus;
        self.memory_gib += room.memory_gib;
        self.gpus.extend(room.gpus());
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_until_it_is_given_back() {
        let all = Pool { cpus: 4, gpus: vec![], memory_gib: 8.0 };
        let policy = |cpus, memory_gib| Policy { cpus, memory_gib, ..Policy::default() };
        let (large, small) = (all.wanted(&policy(Some(3), 6.0), 1), all.wanted(&policy(None, 0.0), 2));
        assert_eq!((all.share(large), all.share(small)), (0.75, 0.5));
        let mut free = all.clone();
        let room = free.room(large).unwrap();
        free.take(&room);
        assert!(free.room(small).is_none());
        free.give_back(&room);
        assert!(free.room(small).is_some());
        // Nobody asks for more than there is.
        assert!(all.room(all.wanted(&policy(Some(64), 100.0), 1)).is_some());
    }
}
