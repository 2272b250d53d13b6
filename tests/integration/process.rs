//! Processes under test: waiting for what they do, and signals.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Child,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// How long anything may take: a machine may be busy with much else.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `check` holds.
pub fn wait_for(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Whether the process whose number `file` holds has not ended.
pub fn alive(file: &Path) -> bool {
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// Sends a signal; false where there is no such process.
pub fn signal(pid: u32, signal: i32) -> bool {
    // SAFETY: sends a signal.
    unsafe { libc::kill(pid as i32, signal) == 0 }
}

/// What `run` says when it starts `stage`: by then, whatever an earlier run left behind has ended. None: it did not start it.
pub fn start_of(stage: &str, run: &mut Child) -> Option<String> {
    let lines = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (sender, receiver) = mpsc::channel();
    // The pipe is read to its end, whoever waits for what.
    thread::spawn(move || lines.for_each(|line| _ = sender.send(line)));
    let begun = Instant::now();
    loop {
        match receiver.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            Ok(line) if line.contains(stage) && !line.contains("is being computed by another run") => {
                return Some(line);
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("waited too long for {stage} to start"),
        }
    }
}
