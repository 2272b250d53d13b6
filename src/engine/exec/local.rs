//! Programs on this machine: a process group each.

use super::{
    super::{
        liveness,
        refusal::{self, Refusal, Refusals},
        spawn::{self, Cage},
    },
    Ended, Executor, Handle, Launch, Outcome,
};
use caco_pipeline::job;
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::ExitStatus,
};

/// A process under way.
#[derive(Debug)]
struct Process {
    group: i32,
    log: PathBuf,
    /// Whether the kernel holds it to its confinement.
    confined: bool,
    /// What it was refused so far.
    refusals: Refusals,
}

/// Starts processes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Executor for Local {
    /// Must be called from a thread that lives as long as the run: the kernel kills the child when the thread that
    /// started it ends.
    fn start(&self, launch: &Launch, lock: RawFd, ended: Ended) -> io::Result<Box<dyn Handle>> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot open {}: {e}", launch.log.display()));
        let log = File::options().create(true).append(true).open(&launch.log).map_err(named)?;
        let program = launch.argv.first().ok_or_else(|| io::Error::other("no program is named"))?;
        let cage = launch.confinement.as_ref().map(Cage::new).transpose()?.flatten();
        let group = spawn::spawn(launch, log.as_raw_fd(), lock, cage.as_ref())
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start '{program}': {e}")))?;
        let refusals = Refusals::default();
        if let (Some(confinement), Some(listener)) = (&launch.confinement, cage.as_ref().and_then(Cage::listener)) {
            let (confinement, refusals) = (confinement.clone(), refusals.clone());
            std::thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(move || refusal::listen(listener, &confinement, &refusals))?;
        }
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            await_end(group);
            // What the stage left running in its group goes with it. The first process is not reaped yet, so the number
            // cannot have been given to somebody else.
            signal(group, libc::SIGKILL);
            ended(outcome(reap(group)));
        })?;
        Ok(Box::new(Process { group, log: launch.log.clone(), confined: cage.is_some(), refusals }))
    }
}

impl Handle for Process {
    fn interrupt(&self) {
        signal(self.group, libc::SIGTERM);
    }

    fn kill(&self) {
        signal(self.group, libc::SIGKILL);
    }

    fn group(&self) -> Option<u32> {
        Some(self.group as u32)
    }

    fn refusals(&self) -> Option<Vec<Refusal>> {
        self.confined.then(|| self.refusals.list())
    }

    fn report(&self) {
        liveness::report(self.group as u32, &self.log);
    }
}

/// Waits until a child has ended, and leaves it to be reaped.
fn await_end(child: i32) {
    loop {
        // SAFETY: the kernel fills the structure, which is plain data.
        let done = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, child as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if done == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

fn reap(child: i32) -> io::Result<ExitStatus> {
    loop {
        let mut status = 0;
        // SAFETY: the status is valid for the length of the call.
        if unsafe { libc::waitpid(child, &mut status, 0) } == child {
            return Ok(ExitStatus::from_raw(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn signal(group: i32, signal: i32) {
    // SAFETY: sends a signal; no memory is involved.
    unsafe { libc::kill(-group, signal) };
}

fn outcome(status: io::Result<ExitStatus>) -> Outcome {
    match status {
        Ok(status) if status.success() => Outcome::Done,
        Ok(status) if status.code() == Some(job::STOPPED) => Outcome::Stopped,
        Ok(status) if status.code() == Some(job::STALLED) => Outcome::Stalled,
        Ok(status) => Outcome::Failed(describe(status)),
        Err(error) => Outcome::Failed(format!("cannot be waited for: {error}")),
    }
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(libc::SIGKILL)) => "killed (signal 9); if nobody did, the system may have run out of memory".into(),
        (None, Some(libc::SIGSEGV)) => "crashed (signal 11, segmentation fault)".into(),
        (None, Some(libc::SIGABRT)) => "crashed (signal 6, abort)".into(),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}
