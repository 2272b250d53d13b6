//! Tracks the current work of a process and how long such work usually takes, to detect work that hangs.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Number of durations kept per kind of work.
const KEPT: usize = 64;
/// Number of durations needed to estimate what is usual. A GPU runs asynchronously: of the steps that training reads
/// together, all but the last seem short.
const ENOUGH: usize = 32;
/// If the watchdog wakes up later than this, the process was not running: the time does not count.
const LATEST: Duration = Duration::from_secs(2);

/// The work of a process: consecutive units of one kind, such as training steps.
#[derive(Debug)]
pub struct Pulse {
    least: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    took: HashMap<&'static str, Vec<Duration>>,
}

#[derive(Debug)]
struct Current {
    kind: &'static str,
    number: u64,
    since: Instant,
    /// How long the watchdog has observed it.
    seen: Duration,
}

/// A unit of work that takes far longer than those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stall {
    kind: &'static str,
    number: u64,
    after: Duration,
    /// `None` if too few have ended.
    median: Option<Duration>,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse::new(Duration::from_secs(60))
    }
}

impl Pulse {
    /// Work counts as stalled after `least` at the earliest.
    pub fn new(least: Duration) -> Self {
        Pulse { least, state: Mutex::default() }
    }

    /// Unit `number` of a kind of work begins; the previous unit, of any kind, has ended.
    pub fn begin(&self, kind: &'static str, number: u64) {
        self.rest();
        self.state().current = Some(Current { kind, number, since: Instant::now(), seen: Duration::ZERO });
    }

    /// The current unit has ended, and the following work has no expected duration.
    pub fn rest(&self) {
        let mut state = self.state();
        let Some(last) = state.current.take() else { return };
        let took = state.took.entry(last.kind).or_default();
        if took.len() == KEPT {
            took.remove(0);
        }
        took.push(last.since.elapsed());
    }

    /// Other work follows, for which the recorded durations do not apply.
    pub fn forget(&self) {
        *self.state() = State::default();
    }

    /// Checks the current unit, `elapsed` after the last check.
    pub fn look(&self, elapsed: Duration) -> Option<Stall> {
        let state = &mut *self.state();
        let current = state.current.as_mut()?;
        current.seen += elapsed.min(LATEST);
        let took = state.took.get(current.kind).map_or(&[][..], Vec::as_slice);
        if current.seen < limit(took, self.least) {
            return None;
        }
        let median = (took.len() >= ENOUGH).then(|| median(took));
        Some(Stall { kind: current.kind, number: current.number, after: current.seen, median })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Ten times the median, and at least three times the longest: on a GPU the steps that wait for the device are few and
/// long. Until there are enough durations, two hours if `least` is a minute.
fn limit(took: &[Duration], least: Duration) -> Duration {
    if took.len() < ENOUGH {
        return least.saturating_mul(120);
    }
    let longest = took.iter().max().copied().unwrap_or_default();
    least.max(median(took).saturating_mul(10)).max(longest.saturating_mul(3))
}

fn median(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stall { kind, number, after, median } = self;
        write!(f, "{kind} {number} has not ended after {} s", after.as_secs())?;
        match median {
            Some(median) => write!(f, " (median {:.3} s)", median.as_secs_f64()),
            None => write!(f, ", and too few have ended to know how long one takes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn looks(pulse: &Pulse, most: u64) -> Option<(u64, Stall)> {
        (1..=most).find_map(|look| pulse.look(SECOND).map(|stall| (look, stall)))
    }

    #[test]
    fn a_step_far_beyond_the_median_is_a_stall() {
        let pulse = Pulse::new(60 * SECOND);
        (1..=50).for_each(|number| pulse.begin("step", number));
        let (look, stall) = looks(&pulse, 100).unwrap();
        assert_eq!(look, 60);
        assert_eq!(stall.to_string(), "step 50 has not ended after 60 s (median 0.000 s)");
    }

    #[test]
    fn the_limit_follows_the_work() {
        assert_eq!(limit(&[9 * SECOND; 32], 60 * SECOND), 90 * SECOND);
        assert_eq!(limit(&[&[SECOND; 31][..], &[40 * SECOND]].concat(), 60 * SECOND), 120 * SECOND);
        assert_eq!(limit(&[SECOND; 31], 60 * SECOND), 7200 * SECOND);
    }

    #[test]
    fn rest_and_other_work_do_not_count() {
        let pulse = Pulse::new(2 * SECOND);
        (1..=50).for_each(|number| pulse.begin("step", number));
        pulse.rest();
        assert_eq!(looks(&pulse, 1000), None);
        pulse.begin("batch", 1);
        assert_eq!(looks(&pulse, 239), None, "no durations of batches are known");
        pulse.begin("step", 51);
        assert_eq!(looks(&pulse, 5).unwrap().0, 2);
        pulse.forget();
        pulse.begin("step", 1);
        assert_eq!(looks(&pulse, 239), None);
    }

    #[test]
    fn a_process_that_was_stopped_has_not_stalled() {
        let pulse = Pulse::new(60 * SECOND);
        (1..=50).for_each(|number| pulse.begin("step", number));
        assert_eq!(pulse.look(10_000 * SECOND), None);
    }
}
