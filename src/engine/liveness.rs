//! Detects processes that no longer respond. A worker renews a file while it runs; one that was stopped, or that hangs
//! in the kernel, does not.

use super::regular;
use caco_pipeline::job;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The time between two checks. Time in which the runner itself was stopped does not count beyond twice this.
const LOOK: Duration = Duration::from_secs(1);

/// The liveness of one process.
#[derive(Debug)]
pub struct Liveness {
    file: PathBuf,
    limit: Duration,
    looked: Instant,
    seen: Option<Vec<u8>>,
    silent: Duration,
}

impl Liveness {
    /// Watches the stage with this folder, which may be silent for `limit`.
    pub fn of(work: &Path, limit: Duration) -> Self {
        let file = work.join(job::ALIVE);
        let _ = fs::remove_file(&file);
        Liveness { file, limit, looked: Instant::now(), seen: None, silent: Duration::ZERO }
    }

    /// Checks the process if a check is due. Returns how long it has been silent if that is too long. A process that
    /// has never renewed the file is not expected to.
    pub fn look(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.looked);
        if elapsed < LOOK {
            return None;
        }
        self.looked = now;
        let now = regular::read(&self.file).ok()?;
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            self.silent = Duration::ZERO;
            return None;
        }
        self.silent += elapsed.min(2 * LOOK);
        (self.silent >= self.limit).then_some(self.silent)
    }
}

/// Appends the kernel's state of each thread of a process to a stage's log.
pub fn report(process: u32, log: &Path) {
    // What is no file is not waited for.
    let Ok(mut log) = regular::open(log).and_then(|_| File::options().append(true).open(log)) else { return };
    for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("unknown").trim();
        let (name, number, waits) = (read("comm"), thread.file_name(), read("wchan"));
        let _ = write!(log, "thread {} ({}): state {state}", number.display(), name.trim());
        let _ = if matches!(&*waits, "" | "0") { writeln!(log) } else { writeln!(log, ", in {waits}") };
        let _ = write!(log, "{}", read("stack"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_renewal() {
        let work = tempfile::tempdir().unwrap();
        let mut liveness = Liveness::of(work.path(), Duration::from_secs(3));
        let start = Instant::now();
        let mut look = |second| liveness.look(start + Duration::from_secs(second));
        assert!((1..10).all(|second| look(second).is_none()), "it never began to renew the file");
        let file = work.path().join(job::ALIVE);
        fs::write(&file, "").unwrap();
        assert!((10..13).all(|second| look(second).is_none()));
        fs::write(&file, "again").unwrap();
        assert!((13..16).all(|second| look(second).is_none()));
        assert_eq!(look(16), Some(Duration::from_secs(3)));
    }

    #[test]
    fn time_in_which_the_runner_was_stopped_does_not_count() {
        let work = tempfile::tempdir().unwrap();
        let mut liveness = Liveness::of(work.path(), Duration::from_secs(30));
        fs::write(work.path().join(job::ALIVE), "").unwrap();
        let start = Instant::now();
        assert_eq!(liveness.look(start + Duration::from_secs(1)), None);
        assert_eq!(liveness.look(start + Duration::from_secs(10_000)), None);
    }

    #[test]
    fn every_thread_is_reported() {
        let work = tempfile::tempdir().unwrap();
        let log = work.path().join("log");
        fs::write(&log, "before\n").unwrap();
        report(std::process::id(), &log);
        let text = fs::read_to_string(log).unwrap();
        assert!(text.starts_with("before\nthread ") && text.contains("state "), "{text}");
    }
}
