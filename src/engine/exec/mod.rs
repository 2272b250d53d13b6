//! Running the program of one stage, on this machine or elsewhere. It knows no graph.
//!
//! The runner sees an [`Executor`] and the [`Handle`]s that it gives. An executor that starts stages on another machine
//! writes the [`Launch`] to a file and has `caco exec-stage FILE` run there, which confines and executes it with the
//! code that [`Local`] calls directly: one more process per stage would cost small stages more time than they take.

mod launch;
mod local;

pub use launch::{Launch, exec_stage};
pub use local::Local;

use super::{
    pool::{Allocation, Pool, Request},
    refusal::Refusal,
};
use std::{fmt, io, os::fd::RawFd};

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It stopped at a checkpoint, as it was asked to.
    Stopped,
    /// Its own watchdog ended it: a step took far too long.
    Stalled,
    /// It failed, and why.
    Failed(String),
}

/// What an executor reports of a program that has ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What its confinement refused it. None: it ran unconfined.
    pub refusals: Option<Vec<Refusal>>,
}

/// Must be called once, when a program has ended.
pub type Ended = Box<dyn FnOnce(Report) + Send>;

/// Runs programs somewhere, on resources of its own.
pub trait Executor {
    /// All resources that it hands out.
    fn pool(&self) -> &Pool;
    /// Whether [`Executor::allocate`] could succeed for any request now.
    fn has_room(&self) -> bool;
    /// Resources for one stage, until the allocation is dropped. None: not now.
    fn allocate(&self, request: Request) -> Option<Allocation>;
    /// Starts a program, or queues it. `lock` is an open file that locks the stage's key: a process of this machine
    /// inherits it, so that the key stays locked as long as the process lives.
    fn start(&self, launch: &Launch, allocation: &Allocation, lock: RawFd, ended: Ended)
    -> io::Result<Box<dyn Handle>>;
}

/// A program that was started.
pub trait Handle: fmt::Debug {
    /// Asks it to write a checkpoint and end.
    fn interrupt(&self);
    /// Ends it at once.
    fn kill(&self);
    /// Its process group, where that is on this machine: a guard kills it if the runner dies.
    fn group(&self) -> Option<u32>;
    /// Appends to its log what is known of its threads.
    fn report(&self);
}
