//! A small process that outlives a killed runner just long enough to kill the stages it left behind.
//!
//! A stage's own process dies with its runner by the kernel's hand (PR_SET_PDEATHSIG), but the programs that it started
//! in turn do not. Every stage is a process group; the guard is told of each, and when the pipe to the runner breaks it
//! kills those that are left.

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
    /// Starts the guard: this same program, told to be one.
    pub fn start() -> io::Result<Guard> {
        let mut command = Command::new(std::env::current_exe()?);
        // A group of its own, so that Ctrl-C at the terminal does not reach it.
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(Guard { child, pipe })
    }

    /// Tells of a process group that is alive from now on.
    pub fn add(&mut self, group: u32) {
        self.tell('+', group);
    }

    /// Tells of a process group that has ended.
    pub fn remove(&mut self, group: u32) {
        self.tell('-', group);
    }

    fn tell(&mut self, sign: char, group: u32) {
        if let Some(pipe) = &mut self.pipe {
            // A dead guard guards nothing; the run goes on.
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

/// The guard's own life: reads groups until the pipe breaks, then kills those that are left.
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
