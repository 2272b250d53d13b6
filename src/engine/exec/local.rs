//! Programs on this machine: a process group each.

use super::{
    super::{
        command, liveness, orphans,
        pool::{Allocation, Free, Pool, Request},
        refusal::{self, Refusals},
        spawn::{self, Cage},
    },
    Ended, Executor, Handle, Launch, Outcome, Report,
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

/// This machine: a process for each program, on a pool of its resources.
#[derive(Debug)]
pub struct Local {
    pool: Pool,
    free: Free,
}

impl Local {
    /// An executor that hands out this pool.
    pub fn new(pool: Pool) -> Self {
        Local { free: Free::all(pool.clone()), pool }
    }
}

impl Executor for Local {
    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn has_room(&self) -> bool {
        self.free.cpus() > 0
    }

    fn allocate(&self, request: Request) -> Option<Allocation> {
        self.free.allocate(request)
    }

    /// Must be called from a thread that lives as long as the run: the kernel kills the child when the thread that
    /// started it ends.
    fn start(&self, launch: &Launch, _: &Allocation, lock: RawFd, ended: Ended) -> io::Result<Box<dyn Handle>> {
        Ok(Box::new(Process::start(launch, Some(lock), ended)?))
    }
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    group: i32,
    log: PathBuf,
}

impl Process {
    /// Starts a program, confined as its launch says. It inherits `lock`.
    pub(super) fn start(launch: &Launch, lock: Option<RawFd>, ended: Ended) -> io::Result<Process> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot open {}: {e}", launch.log.display()));
        let log = File::options().create(true).append(true).open(&launch.log).map_err(named)?;
        let program = launch.argv.first().ok_or_else(|| io::Error::other("no program is named"))?;
        orphans::adopt();
        let cage = launch.confinement.as_ref().map(Cage::new).transpose()?.flatten();
        let group = spawn::spawn(launch, log.as_raw_fd(), lock, cage.as_ref())
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start '{program}': {e}")))?;
        let refusals = cage.is_some().then(Refusals::default);
        let listener = cage.as_ref().and_then(Cage::listener);
        let threads = || -> io::Result<()> {
            if let (Some(confinement), Some(listener), Some(refusals)) = (&launch.confinement, listener, &refusals) {
                let (confinement, refusals) = (confinement.clone(), refusals.clone());
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || refusal::listen(listener, &confinement, &refusals))?;
            }
            let tmpdir = own_tmpdir(launch);
            std::thread::Builder::new().stack_size(64 << 10).spawn(move || wait(group, tmpdir, refusals, ended))?;
            Ok(())
        };
        // Do not leave a program running without a waiter.
        threads().inspect_err(|_| {
            signal(group, libc::SIGKILL);
            let _ = reap(group);
        })?;
        Ok(Process { group, log: launch.log.clone() })
    }
}

/// The folder for temporary files that a program has to itself.
fn own_tmpdir(launch: &Launch) -> Option<PathBuf> {
    let tmpdir = launch.env.iter().rev().find(|(name, _)| name == "TMPDIR").map(|(_, value)| PathBuf::from(value));
    let own = launch.folder.parent()?.join(command::TMP);
    tmpdir.filter(|tmpdir| *tmpdir == own)
}

/// Waits until a program has ended, and reports that.
fn wait(group: i32, tmpdir: Option<PathBuf>, refusals: Option<Refusals>, ended: Ended) {
    await_end(group);
    // What the stage left running in its group ends with it. The first process is not reaped yet, so the kernel cannot
    // have given its number to another one.
    signal(group, libc::SIGKILL);
    orphans::end(group, tmpdir.as_deref());
    let outcome = outcome(reap(group));
    ended(Report { outcome, refusals: refusals.map(|refusals| refusals.list()) });
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

/// The exit code of a shell for a command that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + libc::SIGPIPE;

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(BROKEN_PIPE), _) => {
            format!(
                "exit code {BROKEN_PIPE}: a command wrote to a pipe whose reader had ended, as `… | head` does; if that is meant, write {{ … || true; }} | head"
            )
        }
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(libc::SIGKILL)) => "killed (signal 9); if nobody did, the system may have run out of memory".into(),
        (None, Some(libc::SIGSEGV)) => "crashed (signal 11, segmentation fault)".into(),
        (None, Some(libc::SIGABRT)) => "crashed (signal 6, abort)".into(),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}
