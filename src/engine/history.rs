//! The history of runs. Each run has a file `runs/<start>-<pid>.jsonl`, with a line when it begins, one for every
//! attempt at a stage, and one when it ends. The run keeps the file locked, which distinguishes a run in progress from
//! one that was killed. Only `history` reads it, so it is not synced, and a run continues if it cannot be written.

use super::{
    event::{Event, How, Outcome},
    graph::{Graph, Id},
    key::Key,
    store::{self, At, Store},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The number of records to keep.
const KEPT: usize = 1000;
/// The number of hits recorded by key. The time saved by the others is extrapolated from these.
const SAMPLE: usize = 256;

/// What a run was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Request {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its file.
    pub file: PathBuf,
    /// The profile applied to it.
    pub profile: Option<String>,
    /// The values set on the command line.
    pub set: Vec<String>,
    /// The requested stages. If empty, the pipeline's targets.
    pub targets: Vec<String>,
}

/// The first line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Began {
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// When it began, UTC.
    pub started: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// This program's version.
    pub caco: String,
}

/// How an attempt at a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was published.
    Ran,
    /// It failed.
    Failed,
    /// It stopped at a checkpoint.
    Stopped,
}

/// An attempt at a stage.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Attempt {
    /// The stage's name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Key,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// When it began, UTC.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// How it ended.
    pub outcome: Ending,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether it is tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// The last line of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Ended {
    /// How long the run took.
    pub seconds: f64,
    /// Stages that ran.
    pub ran: usize,
    /// Stages that failed for good.
    pub failed: usize,
    /// Stages that were stopped, or not started because the run stopped.
    pub stopped: usize,
    /// Stages that did not run because another one failed or was stopped.
    pub skipped: usize,
    /// Stages whose results were cached.
    pub hits: usize,
    /// The keys of an evenly spaced sample of the hits.
    pub sample: Vec<Key>,
    /// What stopped the run: a signal's number, or 0 for the time limit.
    pub interrupted: Option<i32>,
    /// The store error that aborted the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Began(Began),
    Stage(Attempt),
    Ended(Ended),
}

/// The record of a run in progress.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: Option<File>,
    under_way: HashMap<Id, (Key, u32, SystemTime)>,
}

impl Journal {
    /// Begins the record of a run.
    pub fn begin(store: &Store, request: Request) -> Journal {
        let folder = store.root().join("runs");
        let mut journal = Journal { folder, file: None, under_way: HashMap::new() };
        let began = Began {
            request,
            started: utc(SystemTime::now()),
            host: store::host(),
            pid: std::process::id(),
            caco: env!("CARGO_PKG_VERSION").into(),
        };
        match journal.open(&began) {
            Ok(file) => journal.file = Some(file),
            Err(error) => tracing::debug!("cannot record this run in {}: {error}", journal.folder.display()),
        }
        journal.write(&Line::Began(began));
        journal
    }

    fn open(&self, began: &Began) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let id = format!("{}-{}", began.started.replace(['-', ':'], ""), began.pid);
        let file = File::options().create_new(true).append(true).open(file(&self.folder, &id))?;
        // On a file system without locks, the run looks killed until it ends.
        let _ = file.lock();
        Ok(file)
    }

    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        let mut text = serde_json::to_vec(line).expect("plain data is JSON");
        text.push(b'\n');
        if let Err(error) = file.write_all(&text) {
            tracing::debug!("cannot record the rest of this run: {error}");
            self.file = None;
        }
    }

    /// Records the outcome of a stage.
    pub fn event(&mut self, graph: &Graph, event: &Event) {
        match event {
            Event::Started { id, key, attempt, .. } => {
                self.under_way.insert(*id, (*key, *attempt, SystemTime::now()));
            }
            Event::Done { id, how: How::Ran, took } => {
                let attempt = self.attempt(graph, *id, Ending::Ran);
                self.note(attempt.map(|a| Attempt { seconds: took.as_secs_f64(), ..a }));
            }
            Event::Failed { id, failure, again } => {
                // A stage that failed to start has no entry yet.
                self.under_way.entry(*id).or_insert((failure.key, 1, SystemTime::now()));
                let attempt = self.attempt(graph, *id, Ending::Failed);
                let why = failure.why.lines().next().map(String::from);
                self.note(attempt.map(|a| Attempt { why, again: again.is_some(), ..a }));
            }
            Event::Stopped { id } => {
                let attempt = self.attempt(graph, *id, Ending::Stopped);
                self.note(attempt);
            }
            _ => {}
        }
    }

    fn attempt(&mut self, graph: &Graph, id: Id, outcome: Ending) -> Option<Attempt> {
        let (key, attempt, began) = self.under_way.remove(&id)?;
        let stage = graph.stage(id);
        Some(Attempt {
            stage: stage.name.clone(),
            kind: stage.kind.into(),
            key,
            attempt,
            started: utc(began),
            seconds: began.elapsed().unwrap_or_default().as_secs_f64(),
            outcome,
            why: None,
            again: false,
        })
    }

    fn note(&mut self, attempt: Option<Attempt>) {
        if let Some(attempt) = attempt {
            self.write(&Line::Stage(attempt));
        }
    }

    /// Completes the record of a finished run, and removes the oldest records if there are too many. `hits` are the
    /// keys of the stages whose results were cached.
    pub fn end(mut self, outcome: &Outcome, hits: &[Key], took: Duration) {
        let stride = hits.len().div_ceil(SAMPLE).max(1);
        self.write(&Line::Ended(Ended {
            seconds: took.as_secs_f64(),
            ran: outcome.ran.len(),
            failed: outcome.failed.len(),
            stopped: outcome.stopped.len(),
            skipped: outcome.skipped.len(),
            hits: outcome.hits,
            sample: hits.iter().step_by(stride).copied().collect(),
            interrupted: outcome.interrupted,
            error: None,
        }));
        self.prune();
    }

    /// Completes the record of a run that a store error aborted.
    pub fn break_off(mut self, error: &store::Error, took: Duration) {
        let error = Some(error.to_string());
        self.write(&Line::Ended(Ended { seconds: took.as_secs_f64(), error, ..Ended::default() }));
    }

    /// Removes the oldest records, except those of runs in progress.
    fn prune(&self) {
        let ids = ids(&self.folder).unwrap_or_default();
        for id in ids.iter().skip(KEPT) {
            let path = file(&self.folder, id);
            if !is_held(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// A run, read from its record.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Run {
    /// The record's name: when the run began, and its process.
    pub id: String,
    /// What was requested, when and where.
    pub began: Began,
    /// Attempts at stages, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    /// How it ended. `None` if it is in progress, or was killed.
    pub ended: Option<Ended>,
    /// Whether it is in progress.
    pub running: bool,
}

/// Time that hits saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Saved {
    /// Seconds.
    pub seconds: f64,
    /// Whether some of the results were removed, so that their times are unknown.
    pub at_least: bool,
    /// Whether only a sample of the hits was recorded.
    pub about: bool,
}

impl Run {
    /// Reads a run's record. `None` if there is none, or its first line is incomplete.
    pub fn read(store: &Store, id: &str) -> store::Result<Option<Run>> {
        let path = file(&store.root().join("runs"), id);
        // Checked before reading: a run that ends between the two has written its last line.
        let running = is_held(&path);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at("read", &path)?,
        };
        // Skip lines that are incomplete, or that a newer caco wrote.
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let Some(Line::Began(began)) = lines.next() else { return Ok(None) };
        let mut run = Run { id: id.into(), began, attempts: vec![], ended: None, running };
        for line in lines {
            match line {
                Line::Began(_) => {}
                Line::Stage(attempt) => run.attempts.push(attempt),
                Line::Ended(ended) => run.ended = Some(ended),
            }
        }
        run.running &= run.ended.is_none();
        Ok(Some(run))
    }

    /// The last attempt at a key.
    pub fn last_attempt(&self, key: Key) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.key == key)
    }

    /// The time that its hits saved, from the records of their results. `known` caches what was read.
    pub fn saved(&self, store: &Store, known: &mut HashMap<Key, Option<f64>>) -> Saved {
        let Some(ended) = self.ended.as_ref().filter(|ended| !ended.sample.is_empty()) else { return Saved::default() };
        let mut seconds = 0.0;
        let mut gone = 0;
        for key in &ended.sample {
            match known.entry(*key).or_insert_with(|| seconds_of(store, *key)) {
                Some(took) => seconds += *took,
                None => gone += 1,
            }
        }
        let weight = ended.hits as f64 / ended.sample.len() as f64;
        Saved { seconds: seconds * weight, at_least: gone > 0, about: ended.sample.len() < ended.hits }
    }
}

/// The runs in a store, the newest first.
pub fn runs(store: &Store) -> store::Result<Vec<String>> {
    let folder = store.root().join("runs");
    ids(&folder).at("read", &folder)
}

fn file(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.jsonl"))
}

fn ids(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        read => read?,
    };
    let mut ids = vec![];
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).map(String::from));
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(ids)
}

/// Whether the run that writes this record is still in progress.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn seconds_of(store: &Store, key: Key) -> Option<f64> {
    let published = store.lookup(key).ok()??;
    store.record(&published).ok()??["seconds"].as_f64()
}

fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
