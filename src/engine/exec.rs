//! Starting, interrupting and awaiting the process of one stage. It knows no graph.

use super::{
    confine::Confinement,
    refusal::{self, Refusals},
    spawn::{self, Cage},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::ExitStatus,
    sync::mpsc::Sender,
};

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its environment; nothing else is handed on.
    pub env: Vec<(String, String)>,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// What it may open. None: all that its user may.
    pub confinement: Option<Confinement>,
}

/// A process that has ended: the number it was started under, and how.
pub type Ended = (u32, io::Result<ExitStatus>);

/// A process under way.
#[derive(Debug)]
pub struct Process {
    group: i32,
    /// Whether the kernel holds it to its confinement.
    pub confined: bool,
    /// What it was refused so far.
    pub refusals: Refusals,
}

/// Starts processes.
pub trait Executor {
    /// Starts a program. When it has ended, `(tag, status)` is sent. `keep` stays open in it.
    fn start<M: From<Ended> + Send + 'static>(
        &self,
        launch: &Launch,
        keep: RawFd,
        tag: u32,
        done: Sender<M>,
    ) -> io::Result<Process>;
}

/// Starts processes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Executor for Local {
    /// Must be called from a thread that lives as long as the run: the kernel kills the child when the thread that
    /// started it ends.
    fn start<M: From<Ended> + Send + 'static>(
        &self,
        launch: &Launch,
        keep: RawFd,
        tag: u32,
        done: Sender<M>,
    ) -> io::Result<Process> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot open {}: {e}", launch.log.display()));
        let log = File::options().create(true).append(true).open(&launch.log).map_err(named)?;
        let program = launch.argv.first().ok_or_else(|| io::Error::other("no program is named"))?;
        let cage = launch.confinement.as_ref().map(Cage::new).transpose()?.flatten();
        let group = spawn::spawn(launch, log.as_raw_fd(), keep, cage.as_ref())
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
            let _ = done.send(M::from((tag, reap(group))));
        })?;
        Ok(Process { group, confined: cage.is_some(), refusals })
    }
}

impl Process {
    /// The process group, which is also the first process's number.
    pub fn group(&self) -> u32 {
        self.group as u32
    }

    /// Asks it to write a checkpoint and end.
    pub fn interrupt(&self) {
        signal(self.group, libc::SIGTERM);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        signal(self.group, libc::SIGKILL);
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

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(libc::SIGKILL)) => "killed (signal 9); if nobody did, the system may have run out of memory".into(),
        (None, Some(libc::SIGSEGV)) => "crashed (signal 11, segmentation fault)".into(),
        (None, Some(libc::SIGABRT)) => "crashed (signal 6, abort)".into(),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}
