//! Running the program of one stage, wherever that is. It knows no graph.
//!
//! The runner sees an [`Executor`] and the [`Handle`]s that it gives, and nothing of where programs run.

mod local;

pub use local::Local;

use super::{confine::Confinement, refusal::Refusal};
use std::{fmt, io, os::fd::RawFd, path::PathBuf};

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

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Done,
    /// At a checkpoint, as it was asked to.
    Stopped,
    /// By its own watchdog: a step took far too long.
    Stalled,
    /// Otherwise, in words.
    Failed(String),
}

/// Is called once, when a program has ended.
pub type Ended = Box<dyn FnOnce(Outcome) + Send>;

/// Runs programs somewhere.
pub trait Executor {
    /// Starts a program, or puts it where it will be started. `lock` stays open in it, so that its key is locked as long
    /// as it lives.
    fn start(&self, launch: &Launch, lock: RawFd, ended: Ended) -> io::Result<Box<dyn Handle>>;
}

/// A program under way.
pub trait Handle: fmt::Debug {
    /// Asks it to write a checkpoint and end.
    fn interrupt(&self);
    /// Ends it at once.
    fn kill(&self);
    /// Its process group, where that is on this machine: a guard kills it should the runner die.
    fn group(&self) -> Option<u32>;
    /// What its confinement refused it so far. None: nothing holds it to one.
    fn refusals(&self) -> Option<Vec<Refusal>>;
    /// Appends to its log what is known of its threads.
    fn report(&self);
}
