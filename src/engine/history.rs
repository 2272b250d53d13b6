//! The history of runs: of each a file `runs/<start>-<pid>.jsonl`, with a line when it begins, one for every attempt at a
//! stage, and one when it ends. The run holds the file locked, so that a run that was killed can be told from one that
//! goes on. Nothing reads it but people and `history`, so it is not synced, and a run goes on without it.

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

/// So many records are kept, the newest.
const KEPT: usize = 1000;
/// So many hits are noted by key; the time that the rest saved counts like theirs.
const SAMPLE: usize = 256;

/// What a run was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Request {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its file.
    pub file: PathBuf,
    /// The profile laid over it.
    pub profile: Option<String>,
    /// The values laid over it.
    pub set: Vec<String>,
    /// The stages asked for; none: the pipeline's targets.
    pub targets: Vec<String>,
}

/// The first line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema, Deserialize)]
pub struct Began {
    /// What was asked for.
    #[serde(flatten)]
    pub request: Request,
    /// When it began, UTC.
    pub started: String,
    /// On which machine.
    pub host: String,
    /// As which process.
    pub pid: u32,
    /// This program's version.
    pub caco: String,
}

/// How an attempt at a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its result is there.
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
    /// Stages that were stopped, or not begun any more.
    pub stopped: usize,
    /// Stages that did not run because another one failed or was stopped.
    pub skipped: usize,
    /// Stages whose results were there.
    pub hits: usize,
    /// The keys of some of the hits, evenly taken.
    pub sample: Vec<Key>,
    /// What stopped the run: a signal's number, or 0 for the time limit.
    pub interrupted: Option<i32>,
    /// What of the store's own broke the run off.
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
            Err(error) => tracing::debug!("this run leaves no record in {}: {error}", journal.folder.display()),
        }
        journal.write(&Line::Began(began));
        journal
    }

    fn open(&self, began: &Began) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let id = format!("{}-{}", began.started.replace(['-', ':'], ""), began.pid);
        let file = File::options().create_new(true).append(true).open(file(&self.folder, &id))?;
        // Where the file system knows no locks, the run looks as if it were killed until it ends.
        let _ = file.lock();
        Ok(file)
    }

    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        let mut text = serde_json::to_vec(line).expect("plain data is JSON");
        text.push(b'\n');
        if let Err(error) = file.write_all(&text) {
            tracing::debug!("the rest of this run leaves no record: {error}");
            self.file = None;
        }
    }

    /// Notes what became of a stage.
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
                // What could not even be started was never under way.
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

    /// Ends the record of a run that came to its end, and removes the oldest records where there are too many. `hits` are
    /// the keys of the stages whose results were there.
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

    /// Ends the record of a run that the store's own failure broke off.
    pub fn break_off(mut self, error: &store::Error, took: Duration) {
        let error = Some(error.to_string());
        self.write(&Line::Ended(Ended { seconds: took.as_secs_f64(), error, ..Ended::default() }));
    }

    /// Removes the oldest records. Those of runs that go on stay, however old.
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

/// A run, as its record tells.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Run {
    /// When it began, and its process: the record's name.
    pub id: String,
    /// What was asked for, when and where.
    pub began: Began,
    /// Attempts at stages, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    /// How it ended. None: it goes on, or was killed.
    pub ended: Option<Ended>,
    /// Whether it goes on.
    pub goes_on: bool,
}

/// Time that hits saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Saved {
    /// Seconds.
    pub seconds: f64,
    /// Whether some of the results are gone, so that nobody knows any more what they took.
    pub at_least: bool,
    /// Whether only some of the hits were noted.
    pub about: bool,
}

impl Run {
    /// A run's record. None: there is none, or its first line is not whole.
    pub fn read(store: &Store, id: &str) -> store::Result<Option<Run>> {
        let path = file(&store.root().join("runs"), id);
        // Asked before reading: a run that ends between the two has written its end.
        let goes_on = is_held(&path);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at("read", &path)?,
        };
        // A line that was cut off, or that a later program wrote, is passed over.
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let Some(Line::Began(began)) = lines.next() else { return Ok(None) };
        let mut run = Run { id: id.into(), began, attempts: vec![], ended: None, goes_on };
        for line in lines {
            match line {
                Line::Began(_) => {}
                Line::Stage(attempt) => run.attempts.push(attempt),
                Line::Ended(ended) => run.ended = Some(ended),
            }
        }
        run.goes_on &= run.ended.is_none();
        Ok(Some(run))
    }

    /// The last attempt at a key.
    pub fn last_attempt(&self, key: Key) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.key == key)
    }

    /// The time that its hits saved, by what the store knows of their results. `known` keeps what was read.
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

/// Whether the run that writes this record goes on.
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
