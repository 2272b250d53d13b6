//! Plans which stages run, and which have a cached result.

use super::{
    digest::Digest,
    graph::{Graph, Id, Origin},
    key::{self, Key, Parts},
    listing::{self, Content, Stamp},
    stat,
    store::{self, Published, Store},
    tool::Tool,
};
use rayon::prelude::*;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What was found at a path, and the stamp from before it was read.
#[derive(Debug)]
struct Found {
    stamp: Option<Stamp>,
    content: Result<Option<Arc<Content>>, listing::Error>,
    /// The digest of the content, which takes a while for a large folder.
    digest: Option<Digest>,
    /// The digest that the plan was made with. It stays when the path is read again.
    planned: Option<Digest>,
}

impl Found {
    fn at(path: &Path, cache: &stat::Cache) -> Found {
        let (stamp, content) = match listing::stamped(path, cache) {
            Ok(Some((stamp, content))) => (Some(stamp), Ok(Some(Arc::new(content)))),
            Ok(None) => (None, Ok(None)),
            Err(error) => (None, Err(error)),
        };
        let digest = content.as_ref().ok().and_then(Option::as_ref).map(|content| content.digest());
        Found { stamp, content, digest, planned: digest }
    }
}

/// Files, folders and programs outside the store, each digested once.
#[derive(Debug, Default)]
pub struct Outside {
    contents: HashMap<PathBuf, Found>,
    tools: HashMap<Box<str>, Result<Tool, String>>,
}

impl Outside {
    /// Digests every file and folder that these stages read, and every program that they name. Unchanged files are not
    /// read again.
    pub fn read(graph: &Graph, ids: &[Id], cache: &stat::Cache) -> Outside {
        let (mut paths, mut tools): (HashSet<&Path>, HashSet<&str>) = Default::default();
        for edge in ids.iter().flat_map(|id| graph.edges(*id)) {
            match &edge.from {
                Origin::Path(Ok(path)) => _ = paths.insert(path),
                Origin::Tool(name) => _ = tools.insert(name),
                _ => {}
            }
        }
        let read = |path: &&Path| (path.to_path_buf(), Found::at(path, cache));
        let tool = |name: &&str| (Box::from(*name), Tool::of(name, cache));
        Outside { contents: paths.par_iter().map(read).collect(), tools: tools.par_iter().map(tool).collect() }
    }

    /// The program of that name.
    pub fn tool(&self, name: &str) -> Result<&Tool, String> {
        self.tools
            .get(name)
            .map_or_else(|| Err(format!("'{name}' was not looked up")), |t| t.as_ref().map_err(Clone::clone))
    }

    /// The content found at a path.
    pub fn content(&self, path: &Path) -> Option<&Arc<Content>> {
        self.contents.get(path).and_then(|found| found.content.as_ref().ok()).and_then(Option::as_ref)
    }

    /// The stamp of a path from before it was read.
    pub fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.contents.get(path).and_then(|found| found.stamp)
    }

    /// Reads a path again, which a stage is about to read, if its stamp changed.
    pub fn refresh(&mut self, path: &Path, cache: &stat::Cache) {
        let known = self.stamp(path);
        if known.is_none() || Stamp::of_path(path).ok() != known {
            self.reread(path, cache);
        }
    }

    /// Reads a path again although its stamp may be the same.
    pub fn reread(&mut self, path: &Path, cache: &stat::Cache) {
        let planned = self.contents.get(path).and_then(|found| found.planned);
        self.contents.insert(path.into(), Found { planned, ..Found::at(path, cache) });
    }

    /// Whether a path still holds what the plan was made with.
    pub fn is_as_planned(&self, path: &Path) -> bool {
        self.contents.get(path).is_none_or(|found| found.digest == found.planned)
    }

    fn digest(&self, path: &Path) -> Result<Digest, String> {
        match self.contents.get(path) {
            Some(Found { digest: Some(digest), .. }) => Ok(*digest),
            Some(Found { content: Err(error), .. }) => Err(error.to_string()),
            _ => Err(format!("{} does not exist", path.display())),
        }
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
            let sound =
                read.par_iter().map(|published| store.check_result(published)).collect::<store::Result<Vec<_>>>()?;
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
    let mut missing = vec![];
    let mut unknown = false;
    for edge in graph.edges(id) {
        let digest = match &edge.from {
            Origin::Output(of, output) => match published(*of) {
                None => {
                    unknown = true;
                    continue;
                }
                Some(result) => result
                    .output(output)
                    .map(|o| o.blake3)
                    .ok_or_else(|| format!("stage '{}' wrote no {output}", graph.stage(*of).name)),
            },
            Origin::Path(Ok(path)) => outside.digest(path),
            Origin::Tool(name) => outside.tool(name).map(|tool| tool.digest),
            Origin::Path(Err((path, variable))) => {
                Err(format!("{path}: the environment variable {variable} is not set"))
            }
        };
        match digest {
            Ok(digest) if edge.hashed => inputs.push((&*edge.slot, digest)),
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
    let text = parts.text(&mut inputs);
    Ask::Known(key::of_text(&text), text)
}
