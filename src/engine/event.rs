//! What a run reports: events as they happen, and the outcome of every stage at the end.

use super::{graph::Id, key::Key, printable::tail, regular, store::Published};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A stage was started.
    Started {
        /// The stage.
        id: Id,
        /// Its key.
        key: Key,
        /// Its folder.
        work: &'a Path,
        /// Which try this is, from 1.
        attempt: u32,
        /// How an earlier attempt at it ended.
        before: Before,
    },
    /// A stage's result is available.
    Done {
        /// The stage.
        id: Id,
        /// Where the result came from.
        how: How,
        /// How long it took.
        took: Duration,
    },
    /// A stage failed.
    Failed {
        /// The stage.
        id: Id,
        /// Why.
        failure: &'a Failure,
        /// Whether it is tried again, and when.
        again: Option<Duration>,
    },
    /// A stage was asked to stop, and ended at a checkpoint.
    Stopped {
        /// The stage.
        id: Id,
    },
    /// A stage will not run because one that it reads from failed, was stopped or is blocked.
    Skipped {
        /// The stage.
        id: Id,
    },
    /// An input of a stage changed before it started. It is asked for under another key now.
    Replanned {
        /// The stage.
        id: Id,
        /// The input, where it is known.
        path: Option<&'a Path>,
    },
    /// Another run is computing a stage's key.
    Elsewhere {
        /// The stage.
        id: Id,
    },
    /// The run was asked to stop.
    Stopping {
        /// Stages that are writing a checkpoint.
        running: usize,
    },
    /// A key now has results of different bytes.
    Diverges {
        /// The stage.
        id: Id,
        /// Its key.
        key: Key,
    },
    /// Sent at regular intervals.
    Tick,
}

/// How a stage came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It ran.
    Ran,
    /// Its result was found once its inputs were known.
    Hit,
    /// Another run, or another stage of this run, computed it.
    Shared,
}

/// A stage that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The stage.
    pub stage: Id,
    /// Its key.
    pub key: Key,
    /// What happened.
    pub why: String,
    /// Its folder, kept.
    pub work: PathBuf,
    /// Its log, of all attempts.
    pub log: PathBuf,
    /// The offset in the log at which this attempt begins, in bytes.
    pub log_start: u64,
}

impl Failure {
    /// The end of this attempt's log, at most `most` bytes.
    pub fn end_of_log(&self, most: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = regular::open(&self.log)?;
            let start = file.metadata()?.len().saturating_sub(most).max(self.log_start);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = vec![];
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

/// How an earlier attempt at a stage ended, if its folder still exists. A stage with checkpoints in it resumes from
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// There was no earlier attempt.
    Nothing,
    /// It was stopped or killed.
    BrokenOff,
    /// It failed.
    Failed,
    /// Its program succeeded, and what it wrote was not collected. It is not run again.
    Uncollected,
}

impl Before {
    /// Finds out for the stage with this folder. Unless a failure was recorded, the log decides: every program that was
    /// started has one, and no later attempt removes it.
    pub fn of(work: &Path) -> Before {
        match Failed::read(work) {
            Some(_) => Before::Failed,
            None if work.join("log").exists() => Before::BrokenOff,
            None => Before::Nothing,
        }
    }
}

/// A failure, as recorded in the stage's folder until it runs again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// What happened.
    pub why: String,
    /// The most informative line of its log: the last one.
    pub error: String,
}

const FAILED: &str = "failed.json";
/// The number of last lines of a log that are searched for text.
const LAST: usize = 100;

impl Failed {
    /// Creates the record of a failure.
    pub fn of(failure: &Failure) -> Failed {
        let end = failure.end_of_log(4 << 10);
        let last = tail(&end, LAST).into_iter().rev().map(|line| line.trim().to_string()).find(|line| !line.is_empty());
        let says_more = failure.why.starts_with("exit code");
        let error = last.filter(|_| says_more).unwrap_or_else(|| failure.why.clone());
        Failed { why: failure.why.clone(), error }
    }

    /// Writes it to the stage's folder. Errors are ignored.
    pub fn write(&self, work: &Path) {
        // What the stage may have put there is not written into.
        Failed::forget(work);
        let _ = fs::write(work.join(FAILED), serde_json::to_vec(self).expect("plain data is JSON"));
    }

    /// The failure of the stage with this folder, if its last run failed.
    pub fn read(work: &Path) -> Option<Failed> {
        serde_json::from_slice(&regular::read(&work.join(FAILED)).ok()?).ok()
    }

    /// Removes the record, because the stage runs again.
    pub fn forget(work: &Path) {
        let _ = fs::remove_file(work.join(FAILED));
    }
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Stages that ran.
    pub ran: Vec<(Id, Key, Duration)>,
    /// Stages whose results were cached.
    pub hits: usize,
    /// Stages that failed.
    pub failed: Vec<Failure>,
    /// Stages that were stopped at a checkpoint.
    pub stopped: Vec<Id>,
    /// Stages that did not run because another one failed, was stopped or is blocked.
    pub skipped: Vec<Id>,
    /// What stopped the run: a signal's number, or 0 for the time limit.
    pub interrupted: Option<i32>,
    /// The result of every stage that has one.
    pub results: HashMap<Id, Published>,
}
