//! `caco log`

use super::{FAILED, OfPipelineArgs, Project, open, print, print_bytes};
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::{Graph, Id},
    history::{self, Attempt, Ending, Run},
    key::Key,
    plan::{Plan, Step},
    printable::printable,
    regular,
    store::Store,
};
use caco_inspect::name;
use clap::Args;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, IsTerminal, Read},
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

pub fn main(args: &LogArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
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
        print_file(&folder.join("log"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder with a stage's log: where it works, or worked last without a result; else the record of the result that
/// its name means.
fn find(graph: &Graph, store: &Store, id: Id) -> Result<Option<PathBuf>> {
    let work = |key: Key| Some(store.work(key)).filter(|work| work.join("log").exists());
    let at_work = match step(graph, store, id)? {
        Step::Run(key) => work(key),
        // A run may be computing a cached result again.
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
        let mut log: Option<Tail> = None;
        let mut quiet = false;
        loop {
            // Asked before reading, so that the last look sees the whole log; asked twice, because a run notes how a
            // stage ended just after it has let go of it.
            let running = self.store.is_locked(key);
            let verdict = if running || !quiet { Verdict::NotYet } else { self.verdict(key)? };
            if log.is_none() {
                log = regular::open(&self.store.work(key).join("log")).ok().map(Tail::of);
            }
            if let Some(log) = &mut log {
                log.print(!matches!(verdict, Verdict::NotYet))?;
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
        let stage = &self.graph.stage(self.id).name;
        let again = name::command(self.graph, [stage]);
        bail!("stage '{stage}' has no result, and no run is computing it; run it: {again}")
    }
}

fn ended(attempt: &Attempt) -> ExitCode {
    match &attempt.why {
        Some(why) => say!("stage '{}' failed: {}", attempt.stage, printable(why)),
        None => say!("stage '{}' was stopped at a checkpoint", attempt.stage),
    }
    ExitCode::from(FAILED)
}

/// Prints a whole log.
fn print_file(path: &Path) -> Result<()> {
    let Ok(file) = regular::open(path) else { return Ok(()) };
    Tail::of(file).print(true)
}

/// A log that is printed as it grows: on a terminal printable, elsewhere byte by byte as it was written.
struct Tail {
    file: File,
    /// The start of a character whose end was not written yet.
    rest: Vec<u8>,
    raw: bool,
}

impl Tail {
    fn of(file: File) -> Self {
        Tail { file, rest: vec![], raw: !io::stdout().is_terminal() }
    }

    /// Prints what was written since the last time. `last`: nothing follows.
    fn print(&mut self, last: bool) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        loop {
            let read = (&mut self.file).take(CHUNK).read_to_end(&mut self.rest).context("cannot read the log")?;
            if self.raw {
                print_bytes(&self.rest)?;
                self.rest.clear();
            } else {
                let end = if last && read == 0 { self.rest.len() } else { whole(&self.rest) };
                print(&printable(&String::from_utf8_lossy(&self.rest[..end])))?;
                self.rest.drain(..end);
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// The length of a text without a last character that is not complete.
fn whole(text: &[u8]) -> usize {
    let open = text.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_open = std::str::from_utf8(open).is_err_and(|error| error.error_len().is_none());
    text.len() - if is_open { open.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_character_is_printed_when_it_is_complete() {
        let text = "é✓".as_bytes();
        assert_eq!((0..=text.len()).map(|n| super::whole(&text[..n])).collect::<Vec<_>>(), [0, 0, 2, 2, 2, 5]);
        assert_eq!(super::whole(b"a\xff"), 2);
        assert_eq!(super::whole(b"\xffa\xc3"), 2);
    }
}
