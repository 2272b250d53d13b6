//! Signals that ask a run to stop.

use std::sync::atomic::{AtomicU32, Ordering};

/// Signals received: how many, and the last one.
#[derive(Debug, Default)]
pub struct Signals {
    count: AtomicU32,
    last: AtomicU32,
}

impl Signals {
    /// Records a signal.
    pub fn note(&self, signal: i32) {
        self.last.store(signal as u32, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of signals received, and the last one.
    pub fn get(&self) -> (u32, i32) {
        (self.count.load(Ordering::SeqCst), self.last.load(Ordering::SeqCst) as i32)
    }
}
