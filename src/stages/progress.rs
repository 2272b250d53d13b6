//! How stages tell how far they are.

use crate::job::{Progress, Task};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Tells the task's progress in these units, a few times a second.
pub fn counted<'t>(task: &'t Task, unit: &'static str) -> impl Fn(u64, u64) + Sync + 't {
    const PAUSE: Duration = Duration::from_millis(200);
    let told = Mutex::new(Instant::now());
    move |done, total| {
        if let Ok(mut told) = told.try_lock()
            && told.elapsed() >= PAUSE
        {
            *told = Instant::now();
            task.progress(&Progress { done, total, unit: unit.into(), note: String::new() });
        }
    }
}
