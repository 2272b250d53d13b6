//! Progress reports of stages.

use crate::task::Task;
use caco_pipeline::progress::Progress;
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Makes the task's pulse forget its units when they are no longer counted, as the next ones may be larger.
struct Watched<'t>(&'t Task);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.pulse.forget();
    }
}

/// Returns a function that reports the task's progress in these units, a few times per second. From then on the
/// watchdog expects the next unit.
pub fn counted<'t>(task: &'t Task, unit: &'static str) -> impl Fn(u64, u64) + Sync + 't {
    const PAUSE: Duration = Duration::from_millis(200);
    let reported = Mutex::new(Instant::now());
    let watched = Watched(task);
    move |done, total| {
        match done < total {
            true => watched.0.pulse.begin(unit, done),
            false => watched.0.pulse.rest(),
        }
        if let Ok(mut reported) = reported.try_lock()
            && reported.elapsed() >= PAUSE
        {
            *reported = Instant::now();
            task.report(&Progress { done, total, unit: unit.into(), note: String::new() });
        }
    }
}
