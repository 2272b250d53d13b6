//! Helpers for processes under test: waiting, and signals.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Child,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// The timeout for any wait, generous because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `check` returns true.
pub fn wait_for(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Whether the process whose id is in `file` is alive.
pub fn alive(file: &Path) -> bool {
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// Sends a signal. Returns false if there is no such process.
pub fn signal(pid: u32, signal: i32) -> bool {
    // SAFETY: sends a signal.
    unsafe { libc::kill(pid as i32, signal) == 0 }
}

/// The line that `run` prints when it starts `stage`, not one that warns of its values. By then all processes of an earlier
/// run have ended. `None` if it did not start it.
pub fn start_of(stage: &str, run: &mut Child) -> Option<String> {
    let lines = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (sender, receiver) = mpsc::channel();
    // Read the pipe to its end, so that the process never blocks on it.
    thread::spawn(move || lines.for_each(|line| _ = sender.send(line)));
    let begun = Instant::now();
    loop {
        match receiver.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            Ok(line)
                if line.starts_with('[')
                    && line.contains(stage)
                    && !line.contains("is being computed by another run") =>
            {
                return Some(line);
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("waited too long for {stage} to start"),
        }
    }
}
