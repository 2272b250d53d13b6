//! Estimates the speed of a stage from its progress reports.
//!
//! indicatif's estimator forgets within seconds, which suits downloads. For a training run that reports once every two
//! minutes, it would show hours.

use caco_pipeline::progress::Progress;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Older samples do not count towards the current speed, but the last two are always kept.
const WINDOW: Duration = Duration::from_secs(30);

/// The last progress of a stage, and its speed.
pub struct Meter {
    /// The last report.
    pub progress: Progress,
    /// Samples of time and progress, oldest first. Never empty; the first may be at an old checkpoint.
    seen: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Creates a meter from the first report of a stage.
    pub fn new(progress: Progress, now: Instant) -> Self {
        Meter { seen: [(now, progress.done)].into(), progress }
    }

    /// Adds the next report. Starts over if it counts something else.
    pub fn read(&mut self, next: Progress, now: Instant) {
        let Progress { done, total, unit, .. } = &self.progress;
        if next.unit != *unit || next.total != *total || next.done < *done {
            *self = Meter::new(next, now);
            return;
        }
        if next.done > *done {
            self.seen.push_back((now, next.done));
            while self.seen.len() > 2 && now - self.seen[0].0 > WINDOW {
                self.seen.pop_front();
            }
        }
        self.progress = next;
    }

    /// Units per second. `None` if there is only one sample.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let (first, from) = self.seen[0];
        let (last, to) = self.seen[self.seen.len() - 1];
        let steps = self.seen.len() as u32 - 1;
        let pause = (last - first).checked_div(steps)?;
        // A pause longer than usual lowers the speed.
        let time = if now - last > 2 * pause { now - first } else { last - first };
        Some((to - from) as f64 / time.as_secs_f64()).filter(|rate| rate.is_finite())
    }

    /// Time left at that rate, if the total is known.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let Progress { done, total, .. } = self.progress;
        let seconds = (total > 0).then(|| total.saturating_sub(done) as f64)? / self.rate(now)?;
        let since = now - self.seen[self.seen.len() - 1].0;
        Some(Duration::try_from_secs_f64(seconds).ok()?.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64) -> Progress {
        Progress { done, total: 100, unit: "steps".into(), note: String::new() }
    }

    fn reports(pause: u64, steps: &[u64]) -> (Meter, Instant) {
        let mut now = Instant::now();
        let mut meter = Meter::new(progress(steps[0]), now);
        for step in &steps[1..] {
            now += Duration::from_secs(pause);
            meter.read(progress(*step), now);
        }
        (meter, now)
    }

    #[test]
    fn one_sample_gives_no_rate() {
        let (meter, now) = reports(1, &[50, 50, 50]);
        assert_eq!((meter.rate(now), meter.left(now)), (None, None));
    }

    #[test]
    fn progress_before_the_first_sample_does_not_count() {
        let (meter, now) = reports(10, &[50, 60, 70]);
        assert_eq!((meter.rate(now), meter.left(now)), (Some(1.0), Some(Duration::from_secs(30))));
    }

    #[test]
    fn rare_reports_are_still_measured() {
        let (meter, now) = reports(120, &[0, 1, 2]);
        let later = now + Duration::from_secs(100);
        assert_eq!(meter.left(later), Some(Duration::from_secs(98 * 120 - 100)));
    }

    #[test]
    fn a_stage_without_progress_gets_slower() {
        let (meter, now) = reports(1, &[0, 10, 20]);
        assert_eq!(meter.rate(now), Some(10.0));
        assert_eq!(meter.rate(now + Duration::from_secs(18)), Some(1.0));
    }

    #[test]
    fn a_different_count_starts_over() {
        let (mut meter, now) = reports(1, &[0, 10, 20]);
        meter.read(Progress { unit: "images".into(), ..progress(30) }, now);
        assert_eq!(meter.rate(now + WINDOW), None);
        meter.read(Progress { unit: "images".into(), ..progress(3) }, now + WINDOW);
        assert_eq!(meter.rate(now + WINDOW), None);
    }
}
