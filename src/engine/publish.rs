//! The thread that publishes finished stages to the store, in batches when several end close together.

use super::{
    attest::{Attest, Made},
    command,
    digest::Digest,
    discarded::Discarded,
    external::External,
    gpu::Gpu,
    graph::{Graph, Id},
    key::Key,
    listing::{self, Content},
    regular, stat,
    store::{Committed, Lock, Pending, Published, Store},
    tool::Tool,
    uncollected::Uncollected,
    walk::{self, Stamp},
};
use caco_pipeline::step_digests;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::Scope,
    time::{Duration, SystemTime},
};

/// A stage whose process succeeded.
#[derive(Debug)]
pub struct Finished {
    /// The stage.
    pub id: Id,
    /// Its key.
    pub key: Key,
    /// Its preimage.
    pub preimage: String,
    /// The key's lock, held until the result is published.
    pub lock: Lock,
    /// Its folder.
    pub work: PathBuf,
    /// When it started.
    pub began: SystemTime,
    /// How long it ran.
    pub took: Duration,
    /// Which attempt it was.
    pub attempt: u32,
    /// Whether it resumed from a checkpoint.
    pub resumed: bool,
    /// The allocated CPU cores.
    pub cpus: u32,
    /// The allocated GPUs.
    pub gpus: Vec<Gpu>,
    /// Its inputs.
    pub inputs: Vec<Read>,
    /// Further conditions of its kind, for the record.
    pub conditions: serde_json::Value,
    /// What an earlier run could not collect, if its program is not run again.
    pub kept: Option<Uncollected>,
}

/// One input, as it was read.
#[derive(Debug)]
pub struct Read {
    /// The stage's name for it.
    pub slot: Box<str>,
    /// Whether its content is part of the key.
    pub hashed: bool,
    /// Where it came from.
    pub from: ReadFrom,
}

/// Where an input came from.
#[derive(Debug)]
pub enum ReadFrom {
    /// An output of a stage.
    Output {
        /// The stage.
        stage: Id,
        /// The output's name.
        output: Box<str>,
        /// The stage's result.
        result: Published,
    },
    /// A file or folder outside the store.
    Outside {
        /// Where it is.
        at: External,
        /// Its content when the stage started.
        content: Arc<Content>,
        /// What the stage read of it.
        placed: Placed,
    },
    /// A program on PATH.
    Tool(Tool),
}

/// What a stage read of an input outside the store.
#[derive(Clone, Copy, Debug)]
pub enum Placed {
    /// A copy in its own folder, whose digest was checked; with the SHA-256 of the same bytes, or of a folder's listing.
    Copy(Digest),
    /// The input itself, which had this stamp when the stage started.
    Itself(Stamp),
}

/// The outcome of publishing a stage.
#[derive(Debug)]
pub struct News {
    /// The stage.
    pub id: Id,
    /// Its key.
    pub key: Key,
    /// How long it ran.
    pub took: Duration,
    /// Its result, or why there is none.
    pub result: Result<Committed, Fault>,
}

/// Why a result could not be published.
#[derive(Debug)]
pub struct Fault {
    /// What happened.
    pub why: String,
    /// Whether what the stage wrote is kept for another collection.
    pub kept: bool,
}

impl From<String> for Fault {
    fn from(why: String) -> Fault {
        Fault { why, kept: false }
    }
}

/// The runner's handle to the thread.
pub struct Publisher {
    sender: Sender<Finished>,
}

/// The maximum number of results that share one sync.
const BATCH: usize = 64;

impl Publisher {
    /// Starts the thread. It ends when the publisher is dropped and all is published.
    pub fn start<'s, 'e: 's, M: From<News> + Send + 'static>(
        scope: &'s Scope<'s, 'e>,
        store: &'e Store,
        graph: &'e Graph,
        attest: Option<&'e dyn Attest>,
        news: Sender<M>,
    ) -> Publisher {
        let (sender, receiver) = mpsc::channel::<Finished>();
        scope.spawn(move || {
            let mut discarded = Discarded::default();
            while let Ok(first) = receiver.recv() {
                let batch: Vec<Finished> = std::iter::once(first).chain(receiver.try_iter()).take(BATCH).collect();
                for item in publish(store, graph, attest, batch, &mut discarded) {
                    let _ = news.send(M::from(item));
                }
            }
        });
        Publisher { sender }
    }

    /// Sends a stage to the thread.
    pub fn send(&self, finished: Finished) {
        // The thread ends only after this sender is dropped.
        let _ = self.sender.send(finished);
    }
}

fn publish(
    store: &Store,
    graph: &Graph,
    attest: Option<&dyn Attest>,
    batch: Vec<Finished>,
    discarded: &mut Discarded,
) -> Vec<News> {
    let mut news = vec![];
    let mut ready = vec![];
    // An existing object that an output is deduplicated against must not be collected before its record appears.
    let quiet = store.quiet();
    if let Err(error) = &quiet {
        return batch.into_iter().map(|f| of(f, Err(error.to_string().into()))).collect();
    }
    for finished in batch {
        match take_in(store, graph, attest, &finished) {
            Ok(pending) => ready.push((finished, pending)),
            Err(why) => news.push(of(finished, Err(why))),
        }
    }
    let (finished, pending): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
    match store.commit(&pending) {
        Ok(committed) => {
            for (finished, committed) in finished.into_iter().zip(committed) {
                // Before the lock is released, so that the next holder of the lock finds no leftovers.
                discarded.add(store, &finished.work);
                news.push(of(finished, Ok(committed)));
            }
        }
        Err(error) => news.extend(finished.into_iter().map(|f| of(f, Err(error.to_string().into())))),
    }
    news
}

fn of(finished: Finished, result: Result<Committed, Fault>) -> News {
    News { id: finished.id, key: finished.key, took: finished.took, result }
}

fn take_in(store: &Store, graph: &Graph, attest: Option<&dyn Attest>, finished: &Finished) -> Result<Pending, Fault> {
    check_inputs(store, finished)?;
    let mut pending = Pending::new(finished.key, finished.preimage.clone());
    // Before they move to the store.
    let edited = finished.kept.as_ref().map(|kept| kept.edited(&finished.work.join("out")));
    collect(store, graph, finished, &mut pending).map_err(|why| keep(graph, finished, &pending, why))?;
    pending.record = record(graph, finished, edited);
    pending.log = Some(finished.work.join("log"));
    let byproducts = finished.work.join("byproducts");
    pending.byproducts = fs::read_dir(&byproducts).is_ok_and(|mut d| d.next().is_some()).then_some(byproducts);
    if let Some(attest) = attest {
        let stage = graph.stage(finished.id);
        let made = Made { pipeline: &graph.pipeline, stage, finished, result: &pending };
        pending.attestation = Some(attest.attest(&made)?);
        let before = store.result(pending.key).join(&*pending.record_name());
        pending.supersedes = before.exists() && !attest.holds(&before);
    }
    pending.supersedes |= adds_digests(store, finished, &pending);
    Ok(pending)
}

/// Whether a training has digests of its steps, which an earlier record of the same bytes lacks: it ran again for them.
fn adds_digests(store: &Store, finished: &Finished, pending: &Pending) -> bool {
    let digests = Path::new("byproducts").join(step_digests::FILE);
    let before = store.result(pending.key).join(&*pending.record_name());
    finished.work.join(&digests).exists() && before.exists() && !before.join(&digests).exists()
}

/// Nobody may have written to an input while the stage read it.
fn check_inputs(store: &Store, finished: &Finished) -> Result<(), String> {
    for read in &finished.inputs {
        let ReadFrom::Outside { at, content, placed } = &read.from else { continue };
        if let Content::Folder(listing) = &**content {
            store.keep_listing(listing).map_err(|e| e.to_string())?;
        }
        if !is_as_read(at, content, *placed, &store.stat).map_err(|e| e.to_string())? {
            return Err(format!(
                "its input {} was changed while the stage ran; nothing was published, run again",
                at.path.display()
            ));
        }
    }
    Ok(())
}

/// Stores what the stage wrote.
fn collect(store: &Store, graph: &Graph, finished: &Finished, pending: &mut Pending) -> Result<(), String> {
    let stage = graph.stage(finished.id);
    for (name, is_folder) in [("out", true), ("byproducts", true), ("log", false)] {
        own(&finished.work.join(name), is_folder)?;
    }
    no_special(&finished.work.join("byproducts"))?;
    for name in ["byproducts", "log"] {
        store.detach(&finished.work.join(name)).map_err(|e| e.to_string())?;
    }
    if stage.is_command {
        command::collect_metrics(stage.parameters(), &finished.work.join("out")).map_err(|e| format!("{e:#}"))?;
    }
    let out = finished.work.join("out");
    pending.outputs = store.ingest(&out, &stage.outputs, pending).map_err(|e| e.to_string())?;
    Ok(())
}

/// Keeps what a command wrote for another collection, unless a part of it has moved to the store.
fn keep(graph: &Graph, finished: &Finished, pending: &Pending, why: String) -> Fault {
    let stage = graph.stage(finished.id);
    let (out, metrics) = (finished.work.join("out"), command::metrics_file(stage.parameters()));
    if !stage.is_command || !pending.fresh.is_empty() || !out.is_dir() {
        return why.into();
    }
    let files = stage.outputs.iter().map(|output| &*output.path).chain(metrics.as_deref());
    let kept = Uncollected {
        began: finished.began,
        took: finished.took,
        attempt: finished.attempt,
        cpus: finished.cpus,
        gpus: finished.gpus.clone(),
        conditions: finished.conditions.clone(),
        // What the program left, and not what somebody has made of it since.
        files: match &finished.kept {
            Some(before) => before.files.clone(),
            None => Uncollected::digests(&out, files),
        },
    };
    kept.write(&finished.work);
    let why = format!(
        "{why}; what it wrote is kept: put it right in {} and run again, which only collects it, or run with --force {}",
        out.display(),
        stage.name
    );
    Fault { why, kept: true }
}

/// Whether nobody wrote to an input while a stage read it. Equal bytes at the end are not enough: they may have been
/// others in between.
fn is_as_read(at: &External, content: &Content, placed: Placed, cache: &stat::Cache) -> Result<bool, walk::Error> {
    let Placed::Itself(stamp) = placed else { return Ok(true) };
    let now = listing::of_path(at, cache)?;
    Ok(now.is_some_and(|now| now.stamp == stamp && *now.content == *content))
}

/// Checks that what is moved into the record as it is is still a file or a folder: who reads a record later must not be led
/// elsewhere, nor wait for a pipe.
fn own(path: &Path, is_folder: bool) -> Result<(), String> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_symlink() {
        return Err(format!(
            "it replaced {} with a link, and links are not followed; write a real file or folder",
            path.display()
        ));
    }
    if if is_folder { meta.is_dir() } else { meta.is_file() } {
        return Ok(());
    }
    let kind = if is_folder { "folder" } else { "file" };
    Err(format!("it replaced {}, which is no longer a {kind}; leave it as it is", path.display()))
}

/// An error if there is something else than files and folders below a folder.
fn no_special(folder: &Path) -> Result<(), String> {
    if !folder.exists() {
        return Ok(());
    }
    let unread = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_dir() {
            no_special(&entry.path())?;
        } else if !kind.is_file() {
            return Err(walk::Error::Special { path: entry.path() }.to_string());
        }
    }
    Ok(())
}

/// How the result was produced. None of this is part of the key.
fn record(graph: &Graph, finished: &Finished, edited: Option<Vec<String>>) -> serde_json::Value {
    let stage = graph.stage(finished.id);
    let byproduct = |name: &str| read_json(&finished.work.join("byproducts").join(name));
    json!({
        "stage": stage.name,
        "pipeline": graph.pipeline.name,
        "kind": stage.kind,
        "code": graph.pipeline.registry.code.digest(stage.kind),
        "key": finished.key,
        "started": humantime::format_rfc3339_millis(finished.began).to_string(),
        "seconds": finished.took.as_secs_f64(),
        "attempt": finished.attempt,
        "resumed": finished.resumed,
        "threads": finished.cpus,
        "host": super::store::host(),
        "caco": env!("CARGO_PKG_VERSION"),
        "determinism_class": byproduct("class.json"),
        "device": byproduct("device.json"),
        "conditions": finished.conditions,
        "collected_later": edited.map(|edited| json!({ "edited": edited })),
    })
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&regular::read(path).ok()?).ok()
}
