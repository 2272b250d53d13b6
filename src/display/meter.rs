//! How fast a stage goes, by what it told and when.
//!
//! indicatif's estimator forgets within seconds, which suits downloads: of a training that tells once in two minutes, it
//! says hours.

use caco_pipeline::progress::Progress;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Older looks than this tell nothing of how fast it goes now, but two are kept however old.
const WINDOW: Duration = Duration::from_secs(30);

/// What a stage told last, and how fast it comes forward.
pub struct Meter {
    /// What it told last.
    pub progress: Progress,
    /// When it was seen to have come how far, the oldest first. Not empty: the first may lie at a checkpoint of old.
    seen: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Begins with the first that a stage tells.
    pub fn new(progress: Progress, now: Instant) -> Self {
        Meter { seen: [(now, progress.done)].into(), progress }
    }

    /// Takes in what it tells next. Whatever counts something else begins anew.
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

    /// Units a second. None: it was seen at one place only.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let (first, from) = self.seen[0];
        let (last, to) = self.seen[self.seen.len() - 1];
        let steps = self.seen.len() as u32 - 1;
        let pause = (last - first).checked_div(steps)?;
        // A pause longer than usual is part of how fast it goes.
        let time = if now - last > 2 * pause { now - first } else { last - first };
        Some((to - from) as f64 / time.as_secs_f64()).filter(|rate| rate.is_finite())
    }

    /// Time left at that rate, if it is known how much there is in all.
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

    fn told(pause: u64, steps: &[u64]) -> (Meter, Instant) {
        let mut now = Instant::now();
        let mut meter = Meter::new(progress(steps[0]), now);
        for step in &steps[1..] {
            now += Duration::from_secs(pause);
            meter.read(progress(*step), now);
        }
        (meter, now)
    }

    #[test]
    fn one_look_gives_no_rate() {
        let (meter, now) = told(1, &[50, 50, 50]);
        assert_eq!((meter.rate(now), meter.left(now)), (None, None));
    }

    #[test]
    fn what_was_done_before_it_was_looked_at_is_no_speed() {
        let (meter, now) = told(10, &[50, 60, 70]);
        assert_eq!((meter.rate(now), meter.left(now)), (Some(1.0), Some(Duration::from_secs(30))));
    }

    #[test]
    fn one_that_tells_seldom_is_still_measured() {
        let (meter, now) = told(120, &[0, 1, 2]);
        let later = now + Duration::from_secs(100);
        assert_eq!(meter.left(later), Some(Duration::from_secs(98 * 120 - 100)));
    }

    #[test]
    fn one_that_stands_still_gets_slower() {
        let (meter, now) = told(1, &[0, 10, 20]);
        assert_eq!(meter.rate(now), Some(10.0));
        assert_eq!(meter.rate(now + Duration::from_secs(18)), Some(1.0));
    }

    #[test]
    fn another_count_begins_anew() {
        let (mut meter, now) = told(1, &[0, 10, 20]);
        meter.read(Progress { unit: "images".into(), ..progress(30) }, now);
        assert_eq!(meter.rate(now + WINDOW), None);
        meter.read(Progress { unit: "images".into(), ..progress(3) }, now + WINDOW);
        assert_eq!(meter.rate(now + WINDOW), None);
    }
}
