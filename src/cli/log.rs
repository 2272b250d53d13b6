//! `caco log`

use super::{FAILED, OfPipelineArgs, StoreArgs, open, print};
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::{Graph, Id},
    history::{self, Attempt, Ending, Run},
    key::Key,
    plan::{Plan, Step},
    store::Store,
};
use caco_inspect::name;
use clap::Args;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

/// The file beside the by-products of a tensor stage that holds its spans.
const TRACE: &str = "byproducts/trace.jsonl";
/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(100);
/// So many runs are searched for how a stage ended.
const SEARCHED: usize = 50;

#[derive(Args)]
#[command(after_help = "Examples:\n  caco log pretrain/short\n  caco log pretrain/short --follow")]
pub struct LogArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Print new lines until the stage ends; wait for the stage if a run has not reached it
    #[arg(short, long)]
    follow: bool,
    /// Print its spans, one JSON object a line: what it did, when, how long
    #[arg(long, conflicts_with = "follow")]
    json: bool,
}

pub fn main(args: &LogArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let id = name::stage(&graph, &args.stage)?;
    if args.follow {
        return Follow { graph: &graph, store: &store, id }.main();
    }
    let Some(folder) = find(&graph, &store, id)? else { bail!("stage '{}' was never started here", args.stage) };
    if args.json {
        let path = folder.join(TRACE);
        let spans = fs::read_to_string(&path);
        print(
            &spans.with_context(|| format!("stage '{}' left no spans: cannot read {}", args.stage, path.display()))?,
        )?;
    } else {
        print(&String::from_utf8_lossy(&fs::read(folder.join("log")).unwrap_or_default()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder with a stage's log: where it works, or worked last without a result; else the record of the result that
/// its name means.
fn find(graph: &Graph, store: &Store, id: Id) -> Result<Option<PathBuf>> {
    let work = |key: Key| Some(store.work(key)).filter(|work| work.join("log").exists());
    let at_work = match step(graph, store, id)? {
        Step::Run(key) => work(key),
        // A run may be making a result again that is there.
        Step::Hit(published) => work(published.key).filter(|_| store.is_locked(published.key)),
        _ => None,
    };
    if at_work.is_some() {
        return Ok(at_work);
    }
    let shown = name::shown(graph, id, store)?;
    shown.iter().for_each(|shown| open::note(&shown.notes));
    Ok(shown.map(|shown| store.record_folder(&shown.published)))
}

fn step(graph: &Graph, store: &Store, id: Id) -> Result<Step> {
    let plan = Plan::new(graph, &graph.with_sources(&[id]), store, &HashSet::new())?;
    Ok(plan.step(id).expect("the stage was planned").clone())
}

/// A stage whose log is followed.
struct Follow<'f> {
    graph: &'f Graph,
    store: &'f Store,
    id: Id,
}

/// How a stage ended, or that it has not.
enum Verdict {
    NotYet,
    Done,
    Ended(Box<Attempt>),
    Nobody,
}

impl Follow<'_> {
    fn main(&self) -> Result<ExitCode> {
        let Some(key) = self.key()? else { return self.nobody() };
        let mut log: Option<File> = None;
        let mut quiet = false;
        loop {
            // Asked before reading, so that the last look sees the whole log; asked twice, because a run notes how a
            // stage ended just after it has let go of it.
            let running = self.store.is_locked(key);
            let verdict = if running || !quiet { Verdict::NotYet } else { self.verdict(key)? };
            if log.is_none() {
                log = File::open(self.store.work(key).join("log")).ok();
            }
            if let Some(log) = &mut log {
                copy(log)?;
            }
            match verdict {
                Verdict::NotYet => {}
                Verdict::Done => return self.done(key, log.is_some()),
                Verdict::Ended(attempt) => return Ok(ended(&attempt)),
                Verdict::Nobody => return self.nobody(),
            }
            quiet = !running;
            sleep(LOOK);
        }
    }

    /// The stage's key. It is waited for while a run makes what the stage reads. None: nobody does.
    fn key(&self) -> Result<Option<Key>> {
        loop {
            let run = self.run()?;
            match step(self.graph, self.store, self.id)? {
                Step::Run(key) => return Ok(Some(key)),
                Step::Hit(published) => return Ok(Some(published.key)),
                Step::MayRun if run.is_some() => sleep(10 * LOOK),
                _ => return Ok(None),
            }
        }
    }

    /// The run of this pipeline that is in progress.
    fn run(&self) -> Result<Option<Run>> {
        self.search(|run| run.running && self.is_ours(run))
    }

    fn is_ours(&self, run: &Run) -> bool {
        run.began.request.pipeline == self.graph.pipeline.name
    }

    fn search(&self, which: impl Fn(&Run) -> bool) -> Result<Option<Run>> {
        for id in history::runs(self.store)?.iter().take(SEARCHED) {
            if let Some(run) = Run::read(self.store, id)?.filter(|run| which(run)) {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// What became of a stage that nobody computes.
    fn verdict(&self, key: Key) -> Result<Verdict> {
        let last = |run: &Run| run.last_attempt(key).cloned();
        if let Some(run) = self.run()? {
            match last(&run) {
                Some(attempt) if attempt.outcome != Ending::Ran && !attempt.again => {
                    return Ok(Verdict::Ended(Box::new(attempt)));
                }
                _ if self.store.lookup(key)?.is_some() => return Ok(Verdict::Done),
                _ => return Ok(Verdict::NotYet),
            }
        }
        if self.store.lookup(key)?.is_some() {
            return Ok(Verdict::Done);
        }
        // An older run's failure is not what became of it in this one, which may have been killed.
        let run = self.search(|run| self.is_ours(run))?;
        Ok(run.and_then(|run| last(&run)).map_or(Verdict::Nobody, |attempt| Verdict::Ended(Box::new(attempt))))
    }

    /// Its result is there. What was not seen being written is in the record.
    fn done(&self, key: Key, seen: bool) -> Result<ExitCode> {
        if let Some(published) = self.store.lookup(key)?.filter(|_| !seen) {
            print_file(&self.store.record_folder(&published).join("log"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn nobody(&self) -> Result<ExitCode> {
        let (name, pipeline) = (&self.graph.stage(self.id).name, self.graph.pipeline.path.display());
        bail!("stage '{name}' has no result, and no run is computing it; run it: caco run {pipeline} '{name}'")
    }
}

fn ended(attempt: &Attempt) -> ExitCode {
    match &attempt.why {
        Some(why) => say!("stage '{}' failed: {why}", attempt.stage),
        None => say!("stage '{}' was stopped at a checkpoint", attempt.stage),
    }
    ExitCode::from(FAILED)
}

fn print_file(path: &Path) -> Result<()> {
    print(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
}

/// Prints what was written since the last time.
fn copy(log: &mut File) -> Result<()> {
    let mut out = io::stdout().lock();
    io::copy(log, &mut out)?;
    out.flush()?;
    Ok(())
}
