//! Plans which stages run, and which have a cached result.

use super::{
    digest::Digest,
    external::External,
    graph::{Graph, Id, Origin},
    key::{self, Key, Parts},
    listing::{self, Content, Found},
    stat,
    store::{self, Published, Store},
    tool::Tool,
    walk::{self, Stamp},
};
use rayon::prelude::*;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What was found outside the store, and when.
#[derive(Debug)]
struct Looked {
    found: Result<Option<Found>, walk::Error>,
    /// The digest of the content, which takes a while for a large folder.
    digest: Option<Digest>,
    /// The digest that the plan was made with. It stays when the path is read again.
    planned: Option<Digest>,
}

impl Looked {
    fn at(at: &External, cache: &stat::Cache) -> Looked {
        let found = listing::of_path(at, cache);
        let digest = found.as_ref().ok().and_then(Option::as_ref).map(|found| found.content.digest());
        Looked { found, digest, planned: digest }
    }
}

/// Files, folders and programs outside the store, each digested once.
#[derive(Debug, Default)]
pub struct Outside {
    contents: HashMap<External, Looked>,
    tools: HashMap<Box<str>, Result<Tool, String>>,
}

impl Outside {
    /// Digests every file and folder that these stages read, and every program that they name. Unchanged files are not
    /// read again.
    pub fn read(graph: &Graph, ids: &[Id], cache: &stat::Cache) -> Outside {
        let (mut paths, mut tools): (HashSet<&External>, HashSet<&str>) = Default::default();
        for edge in ids.iter().flat_map(|id| graph.edges(*id)) {
            match &edge.from {
                Origin::Path(Ok(at)) => _ = paths.insert(at),
                Origin::Tool(name) => _ = tools.insert(name),
                _ => {}
            }
        }
        let read = |at: &&External| ((*at).clone(), Looked::at(at, cache));
        let tool = |name: &&str| (Box::from(*name), Tool::of(name, cache));
        Outside { contents: paths.par_iter().map(read).collect(), tools: tools.par_iter().map(tool).collect() }
    }

    /// The program of that name.
    pub fn tool(&self, name: &str) -> Result<&Tool, String> {
        self.tools
            .get(name)
            .map_or_else(|| Err(format!("'{name}' was not looked up")), |t| t.as_ref().map_err(Clone::clone))
    }

    /// What was found there.
    pub fn found(&self, at: &External) -> Option<&Found> {
        self.contents.get(at).and_then(|looked| looked.found.as_ref().ok()).and_then(Option::as_ref)
    }

    /// The content found there.
    pub fn content(&self, at: &External) -> Option<&Arc<Content>> {
        self.found(at).map(|found| &found.content)
    }

    /// Reads again what a stage is about to read, if its stamp changed.
    pub fn refresh(&mut self, at: &External, cache: &stat::Cache) {
        let known = self.found(at).map(|found| found.stamp);
        if known.is_none() || Stamp::of_path(at).ok() != known {
            self.reread(at, cache);
        }
    }

    /// Reads it again although its stamp may be the same.
    pub fn reread(&mut self, at: &External, cache: &stat::Cache) {
        let planned = self.contents.get(at).and_then(|looked| looked.planned);
        self.contents.insert(at.clone(), Looked { planned, ..Looked::at(at, cache) });
    }

    /// Whether it still holds what the plan was made with.
    pub fn is_as_planned(&self, at: &External) -> bool {
        self.contents.get(at).is_none_or(|looked| looked.digest == looked.planned)
    }

    fn digest(&self, at: &External) -> Result<Digest, String> {
        match self.contents.get(at) {
            Some(Looked { digest: Some(digest), .. }) => Ok(*digest),
            Some(Looked { found: Err(error), .. }) => Err(error.to_string()),
            _ => Err(format!("{} does not exist", at.path.display())),
        }
    }

    /// Whether it is an executable file.
    fn is_executable(&self, at: &External) -> bool {
        self.content(at).is_some_and(|content| matches!(**content, Content::File(_, true)))
    }
}

/// A missing input.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Missing {
    /// The stage's name for the input.
    pub slot: String,
    /// Why it is missing, with its path.
    pub why: String,
}

/// A stage's key, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Its key and preimage.
    Known(Key, String),
    /// A stage it reads from has no result yet.
    Unknown,
    /// Inputs outside the store are missing.
    Missing(Vec<Missing>),
}

/// What happens with a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Its result is cached.
    Hit(Published),
    /// It runs.
    Run(Key),
    /// It may run: a stage it reads from runs first, and may write the same bytes as before.
    MayRun,
    /// It cannot run: inputs are missing.
    Blocked(Vec<Missing>),
    /// A stage it reads from is blocked.
    Behind(Id),
}

/// The steps of some stages, in order.
#[derive(Debug)]
pub struct Plan {
    /// The stages in topological order.
    pub steps: Steps,
    /// The index of each stage's step in `steps`.
    place: Vec<u32>,
    /// What was read outside the store.
    pub outside: Outside,
}

impl Plan {
    /// Plans these stages, which must include all that they read from. A stage in `force` runs even if its result is
    /// cached.
    pub fn new(graph: &Graph, ids: &[Id], store: &Store, force: &HashSet<Id>) -> store::Result<Plan> {
        let outside = Outside::read(graph, ids, &store.stat);
        let mut denied = HashSet::new();
        loop {
            let (steps, place) = pass(graph, ids, store, force, &outside, &denied)?;
            // Keys were looked up in the catalog, without system calls. Now check all results found.
            let broken: Vec<&Published> = steps
                .par_iter()
                .filter_map(|(_, step)| match step {
                    Step::Hit(published) if store.is_broken(published) => Some(published),
                    _ => None,
                })
                .collect();
            if broken.is_empty() {
                return Ok(Plan { steps, place, outside });
            }
            for published in broken {
                store.forget(published)?;
                let again = store.lookup(published.key)?;
                if again.is_none_or(|again| store.is_broken(&again)) {
                    denied.insert(published.key);
                }
            }
        }
    }

    /// What happens with a stage. `None` if it is not part of the plan.
    pub fn step(&self, id: Id) -> Option<&Step> {
        self.steps.get(self.place[id as usize] as usize).map(|(_, step)| step)
    }

    /// A plan that is about to be executed. Results that a stage will read are verified against their digests first,
    /// and damaged ones are computed again. The results found are protected from collection while this process lives.
    pub fn checked(graph: &Graph, ids: &[Id], store: &Store, force: &HashSet<Id>) -> store::Result<Plan> {
        let _quiet = store.quiet()?;
        loop {
            let plan = Plan::new(graph, ids, store, force)?;
            if plan.is_done() {
                return Ok(plan);
            }
            let read = plan.read_by_others(graph);
            let sound = read
                .par_iter()
                .map(|published| store.check_with_folders(published))
                .collect::<store::Result<Vec<_>>>()?;
            if sound.iter().all(|sound| *sound) {
                store.begin_use()?;
                store.note_use(plan.hits().map(|(_, published)| published.key))?;
                return Ok(plan);
            }
        }
    }

    /// The stages whose results are cached.
    pub fn hits(&self) -> impl Iterator<Item = (Id, &Published)> {
        self.steps.iter().filter_map(|(id, step)| match step {
            Step::Hit(published) => Some((*id, published)),
            _ => None,
        })
    }

    /// The cached results that the stages that run or may run read.
    fn read_by_others(&self, graph: &Graph) -> Vec<&Published> {
        let readers = self.steps.iter().filter(|(_, step)| matches!(step, Step::Run(_) | Step::MayRun));
        let read: HashSet<Id> = readers.flat_map(|(id, _)| graph.sources(*id)).collect();
        self.hits().filter(|(id, _)| read.contains(id)).map(|(_, published)| published).collect()
    }

    /// Whether every result is cached.
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|(_, step)| matches!(step, Step::Hit(_)))
    }
}

/// Stages in order, with what happens with each.
type Steps = Vec<(Id, Step)>;

fn pass(
    graph: &Graph,
    ids: &[Id],
    store: &Store,
    force: &HashSet<Id>,
    outside: &Outside,
    denied: &HashSet<Key>,
) -> store::Result<(Steps, Vec<u32>)> {
    let mut place: Vec<u32> = vec![u32::MAX; graph.pipeline.stages.len()];
    let mut steps: Steps = Vec::with_capacity(ids.len());
    for &id in ids {
        let step_of = |of: Id| steps.get(place[of as usize] as usize).map(|(_, step)| step);
        let published = |of: Id| match step_of(of) {
            Some(Step::Hit(published)) => Some(published),
            _ => None,
        };
        let blocked = graph.edges(id).iter().find_map(|edge| match edge.from {
            Origin::Output(of, _) if matches!(step_of(of), Some(Step::Blocked(_) | Step::Behind(_))) => Some(of),
            _ => None,
        });
        let step = match (blocked, ask(graph, id, outside, published)) {
            (_, Ask::Missing(missing)) => Step::Blocked(missing),
            (Some(of), _) => Step::Behind(of),
            (None, Ask::Unknown) => Step::MayRun,
            (None, Ask::Known(key, _)) if force.contains(&id) || denied.contains(&key) => Step::Run(key),
            (None, Ask::Known(key, _)) => store.lookup(key)?.map_or(Step::Run(key), Step::Hit),
        };
        place[id as usize] = steps.len() as u32;
        steps.push((id, step));
    }
    Ok((steps, place))
}

/// Computes a stage's key, if all that it reads is known.
pub fn ask<'p>(graph: &Graph, id: Id, outside: &Outside, published: impl Fn(Id) -> Option<&'p Published>) -> Ask {
    let stage = graph.stage(id);
    let mut inputs = Vec::with_capacity(graph.edges(id).len());
    let mut executable = vec![];
    let mut missing = vec![];
    let mut unknown = false;
    for edge in graph.edges(id) {
        let found = match &edge.from {
            Origin::Output(of, output) => match published(*of) {
                None => {
                    unknown = true;
                    continue;
                }
                Some(result) => result
                    .output(output)
                    .map(|o| (o.blake3, o.executable))
                    .ok_or_else(|| format!("stage '{}' wrote no {output}", graph.stage(*of).name)),
            },
            Origin::Path(Ok(at)) => outside.digest(at).map(|digest| (digest, outside.is_executable(at))),
            Origin::Tool(name) => outside.tool(name).map(|tool| (tool.digest, false)),
            Origin::Path(Err((path, variable))) => {
                Err(format!("{path}: the environment variable {variable} is not set"))
            }
        };
        match found {
            Ok((digest, runs)) if edge.hashed => {
                inputs.push((&*edge.slot, digest));
                executable.extend(runs.then_some(&*edge.slot));
            }
            Ok(_) => {}
            Err(why) => missing.push(Missing { slot: edge.slot.to_string(), why }),
        }
    }
    if !missing.is_empty() {
        return Ask::Missing(missing);
    }
    if unknown {
        return Ask::Unknown;
    }
    let code = graph.pipeline.registry.code.unacknowledged(stage.kind);
    let code = code.map(|digest| digest.parse().expect("the build wrote a digest"));
    let parts =
        Parts { kind: stage.kind, version: stage.version, code, parameters: &stage.key_parameters, pin: &stage.pin };
    let text = parts.text(&mut inputs, &mut executable);
    Ask::Known(key::of_text(&text), text)
}
