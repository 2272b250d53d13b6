//! A small process that outlives a killed runner just long enough to kill its remaining stages.
//!
//! The kernel kills a stage's own process with its runner (PR_SET_PDEATHSIG), but not the programs that the process
//! started. Every stage is a process group; the runner reports each to the guard, and when the pipe to the runner
//! breaks, the guard kills those that remain.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

/// The hidden command under which a program calls [`watch`].
pub const COMMAND: &str = "__guard";

/// The runner's end.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard: this same program, with the hidden command.
    pub fn start() -> io::Result<Guard> {
        let mut command = Command::new(std::env::current_exe()?);
        // A group of its own, so that Ctrl-C at the terminal does not reach it.
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(Guard { child, pipe })
    }

    /// Reports a process group that was started.
    pub fn add(&mut self, group: u32) {
        self.report('+', group);
    }

    /// Reports a process group that has ended.
    pub fn remove(&mut self, group: u32) {
        self.report('-', group);
    }

    fn report(&mut self, sign: char, group: u32) {
        if let Some(pipe) = &mut self.pipe {
            // If the guard is dead, the run continues without it.
            let _ = writeln!(pipe, "{sign}{group}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// Runs the guard: reads groups until the pipe breaks, then kills those that remain.
pub fn watch() {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((sign, Ok(group))) = line.split_at_checked(1).map(|(sign, group)| (sign, group.parse::<i32>())) else {
            continue;
        };
        if sign == "+" {
            groups.insert(group);
        } else {
            groups.remove(&group);
        }
    }
    for group in groups.into_iter().filter(|group| *group > 1) {
        // SAFETY: sends a signal; no memory is involved.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}
