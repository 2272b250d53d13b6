//! How stages tell how far they are.

use crate::task::Task;
use caco_pipeline::progress::Progress;
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// A task whose pulse forgets its units when they are no longer counted: the next ones may be larger.
struct Watched<'t>(&'t Task);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.pulse.forget();
    }
}

/// Tells the task's progress in these units, a few times a second. Its watchdog expects the next unit from then on.
pub fn counted<'t>(task: &'t Task, unit: &'static str) -> impl Fn(u64, u64) + Sync + 't {
    const PAUSE: Duration = Duration::from_millis(200);
    let told = Mutex::new(Instant::now());
    let watched = Watched(task);
    move |done, total| {
        match done < total {
            true => watched.0.pulse.begin(unit, done),
            false => watched.0.pulse.rest(),
        }
        if let Ok(mut told) = told.try_lock()
            && told.elapsed() >= PAUSE
        {
            *told = Instant::now();
            task.report(&Progress { done, total, unit: unit.into(), note: String::new() });
        }
    }
}
