//! The graph of stages, connected by their inputs.

use super::external::{External, matcher};
use caco_pipeline::{
    diagnostic::{Diagnostic, nearest},
    kind::{Except, Input, Role, Source, normal},
    pipeline::{Invalid, Pipeline, Stage, expand},
};
use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

/// The output that every stage may write without declaring it.
pub const METRICS: &str = "metrics";
/// Its path below the output folder.
pub const METRICS_PATH: &str = caco_measure::metric::FILE;

/// The number of a stage: its place in [`Pipeline::stages`].
pub type Id = u32;

/// Where an input of a stage comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A named output of a stage.
    Output(Id, Box<str>),
    /// A file or folder outside the store. `Err` holds the path as written, and the variable in it that is not set.
    Path(Result<External, (String, String)>),
    /// A program on PATH, by name.
    Tool(Box<str>),
}

/// One input of a stage, resolved.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The stage's name for it.
    pub slot: Box<str>,
    /// Where it comes from.
    pub from: Origin,
    /// Whether its content is part of the key.
    pub hashed: bool,
}

/// A pipeline's stages and their edges.
#[derive(Debug)]
pub struct Graph {
    /// The pipeline.
    pub pipeline: Pipeline,
    edges: Vec<Vec<Edge>>,
    order: Vec<Id>,
    graph: DiGraph<(), ()>,
    by_name: HashMap<String, Id>,
}

impl Graph {
    /// Connects the stages. Unknown references, ambiguous references and cycles are errors.
    pub fn new(pipeline: Pipeline) -> Result<Graph, Invalid> {
        let by_name: HashMap<String, Id> =
            pipeline.stages.iter().enumerate().map(|(i, s)| (s.name.clone(), i as Id)).collect();
        unambiguous(&pipeline, &by_name)?;
        let mut edges = Vec::with_capacity(pipeline.stages.len());
        for stage in &pipeline.stages {
            edges.push(edges_of(&pipeline, stage, &by_name)?);
        }
        let mut graph = DiGraph::with_capacity(edges.len(), edges.iter().map(Vec::len).sum());
        edges.iter().for_each(|_| _ = graph.add_node(()));
        for (to, edges) in edges.iter().enumerate() {
            for edge in edges {
                if let Origin::Output(from, _) = &edge.from {
                    graph.add_edge(NodeIndex::new(*from as usize), NodeIndex::new(to), ());
                }
            }
        }
        let order = sort(&graph);
        if order.len() < graph.node_count() {
            return Err(cycle(&pipeline, &graph));
        }
        let graph = Graph { pipeline, edges, order, graph, by_name };
        graph.check_targets()?;
        Ok(graph)
    }

    /// A stage.
    pub fn stage(&self, id: Id) -> &Stage {
        &self.pipeline.stages[id as usize]
    }

    /// What it reads.
    pub fn edges(&self, id: Id) -> &[Edge] {
        &self.edges[id as usize]
    }

    /// All stages in topological order.
    pub fn order(&self) -> &[Id] {
        &self.order
    }

    /// The stages that read from it, each once.
    pub fn readers(&self, id: Id) -> Vec<Id> {
        self.neighbours(id, Direction::Outgoing)
    }

    /// The stages it reads from, each once.
    pub fn sources(&self, id: Id) -> Vec<Id> {
        self.neighbours(id, Direction::Incoming)
    }

    fn neighbours(&self, id: Id, direction: Direction) -> Vec<Id> {
        let found = self.graph.neighbors_directed(NodeIndex::new(id as usize), direction);
        let mut ids: Vec<Id> = found.map(|n| n.index() as Id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The stage of that name.
    pub fn find(&self, name: &str) -> Result<Id, Diagnostic> {
        let known = || self.by_name.keys().map(String::as_str);
        let error = || {
            let error = Diagnostic::new(format!("no stage is called '{name}'"));
            let mut own: Vec<&str> =
                known().filter(|of| of.strip_prefix(name).is_some_and(|v| v.starts_with('/'))).collect();
            own.sort_unstable();
            match own.first() {
                Some(first) => {
                    error.help(format!("it has variants: name one, such as '{first}', or '{name}/*' if allowed"))
                }
                None => error.nearest(name, known()),
            }
        };
        self.by_name.get(name).copied().ok_or_else(error)
    }

    /// Resolves `stage/output`; a stage alone means its first output.
    pub fn find_output(&self, reference: &str) -> Result<(Id, Box<str>), Diagnostic> {
        find_output(&self.pipeline, &self.by_name, reference)
    }

    /// The folder of images listed by the index of a stage.
    pub fn images(&self, id: Id) -> Result<Origin, Diagnostic> {
        locate(&self.pipeline, &self.by_name, &self.stage(id).name, ROOT)
    }

    /// The stages that match these names or patterns (`linear/*`), in order.
    pub fn select(&self, patterns: &[String]) -> Result<Vec<Id>, Diagnostic> {
        let mut chosen = HashSet::new();
        for pattern in patterns {
            if let Some(id) = self.by_name.get(pattern) {
                chosen.insert(*id);
                continue;
            }
            let glob = glob::Pattern::new(pattern)
                .map_err(|e| Diagnostic::new(format!("'{pattern}' is not a valid pattern: {e}")))?;
            let before = chosen.len();
            chosen.extend(self.by_name.iter().filter(|(name, _)| glob.matches(name)).map(|(_, id)| *id));
            if chosen.len() == before && !self.by_name.keys().any(|name| glob.matches(name)) {
                return Err(self
                    .find(pattern)
                    .expect_err("no stage has this name")
                    .help("`caco graph` lists the stages"));
            }
        }
        Ok(self.order.iter().copied().filter(|id| chosen.contains(id)).collect())
    }

    /// The stages that are the pipeline's targets, or all stages if it has none.
    pub fn targets(&self) -> Vec<Id> {
        match &self.pipeline.targets {
            Some(targets) => self.select(targets).expect("targets were checked when the graph was made"),
            None => self.order.clone(),
        }
    }

    /// These stages and their transitive sources, in order.
    pub fn with_sources(&self, ids: &[Id]) -> Vec<Id> {
        self.closure(ids, |id| self.sources(id))
    }

    /// These stages and their transitive readers, in order.
    pub fn with_readers(&self, ids: &[Id]) -> Vec<Id> {
        self.closure(ids, |id| self.readers(id))
    }

    fn closure(&self, ids: &[Id], next: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
        let mut seen = vec![false; self.edges.len()];
        let mut stack = ids.to_vec();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut seen[id as usize], true) {
                stack.extend(next(id));
            }
        }
        self.order.iter().copied().filter(|id| seen[*id as usize]).collect()
    }

    fn check_targets(&self) -> Result<(), Invalid> {
        let Some(targets) = &self.pipeline.targets else { return Ok(()) };
        self.select(targets).map(drop).map_err(|error| self.pipeline.invalid(error))
    }
}

/// Sorts topologically, and otherwise in the order of the file, which is the order that users expect. Stages in a
/// cycle, and those that depend on one, are left out.
fn sort(graph: &DiGraph<(), ()>) -> Vec<Id> {
    let mut missing: Vec<usize> =
        graph.node_indices().map(|n| graph.neighbors_directed(n, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        missing.iter().enumerate().filter(|(_, m)| **m == 0).map(|(i, _)| Reverse(i)).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i as Id);
        for reader in graph.neighbors(NodeIndex::new(i)) {
            missing[reader.index()] -= 1;
            if missing[reader.index()] == 0 {
                ready.push(Reverse(reader.index()));
            }
        }
    }
    order
}

/// Rejects a stage named like another stage's output, which would make references ambiguous.
fn unambiguous(pipeline: &Pipeline, by_name: &HashMap<String, Id>) -> Result<(), Invalid> {
    for stage in &pipeline.stages {
        // Most stages have no other below their name; looking for the slash first keeps this linear.
        let mut parent = stage.name.as_str();
        while let Some(slash) = parent.rfind('/') {
            parent = &parent[..slash];
            let Some(above) = by_name.get(parent).map(|id| &pipeline.stages[*id as usize]) else { continue };
            let output = &stage.name[parent.len() + 1..];
            if output == METRICS || above.outputs.iter().any(|o| o.name == output) {
                let message = format!(
                    "'{}' is ambiguous: it names this stage, and the output '{output}' of stage '{parent}'",
                    stage.name
                );
                let error = Diagnostic::new(message).at(stage.at).help("rename one of them");
                return Err(pipeline.invalid(error));
            }
        }
    }
    Ok(())
}

fn edges_of(pipeline: &Pipeline, stage: &Stage, by_name: &HashMap<String, Id>) -> Result<Vec<Edge>, Invalid> {
    let edge = |input: &Input| {
        let from = match (&input.source, input.role) {
            (Source::Path(name), Role::Tool) => Origin::Tool(name.as_str().into()),
            (Source::Path(path), _) => external(pipeline, stage, path, &Except::default()),
            (Source::Folder { path, except }, _) => {
                matcher(except).map_err(|(pattern, why)| bad_pattern(pipeline, stage, &pattern, &why))?;
                external(pipeline, stage, path, except)
            }
            (Source::Stage(reference), role @ (Role::Content | Role::Output(_) | Role::Tool)) => {
                let found = find_output(pipeline, by_name, reference)
                    .and_then(|(id, output)| fits(pipeline, input, role, id, &output).map(|()| (id, output)));
                let (id, output) = found.map_err(|e| at_reference(pipeline, stage, reference, e))?;
                Origin::Output(id, output)
            }
            (Source::Stage(reference), Role::Located(slot)) => {
                locate(pipeline, by_name, reference, slot).map_err(|e| at_reference(pipeline, stage, reference, e))?
            }
        };
        Ok(Edge { slot: input.slot.as_str().into(), from, hashed: !matches!(input.role, Role::Located(_)) })
    };
    stage.inputs.iter().map(edge).collect()
}

fn bad_pattern(pipeline: &Pipeline, stage: &Stage, pattern: &str, why: &dyn std::fmt::Display) -> Invalid {
    let message = format!("stage '{}': '{pattern}' is not a pattern of .gitignore: {why}", stage.name);
    pipeline.at_reference(stage, pattern, Diagnostic::new(message))
}

/// Checks that an output is of the type that an input requires.
fn fits(pipeline: &Pipeline, input: &Input, role: Role, id: Id, output: &str) -> Result<(), Diagnostic> {
    let source = &pipeline.stages[id as usize];
    let Role::Output(wanted) = role else { return Ok(()) };
    if output == wanted || source.is_command {
        return Ok(());
    }
    let makers = pipeline.registry.kinds().iter().filter(|kind| kind.outputs.iter().any(|o| o.name == wanted));
    let makers: Vec<String> = makers.map(|kind| format!("'{}'", kind.name)).collect();
    let error =
        format!("'{}' needs an output '{wanted}', but '{output}' of stage '{}' is not one", input.slot, source.name);
    let own =
        source.outputs.iter().any(|o| o.name == wanted).then(|| format!("did you mean '{}/{wanted}'?", source.name));
    Err(Diagnostic::new(error).help(own.unwrap_or_else(|| format!("name a stage of kind {}", makers.join(", ")))))
}

fn at_reference(pipeline: &Pipeline, stage: &Stage, reference: &str, error: Diagnostic) -> Invalid {
    let message = format!("stage '{}': {}", stage.name, error.message);
    // Inside a variant the variant's name was appended to the reference; the file has it without.
    let written = reference.rsplit_once('/').map_or(reference, |(head, _)| head);
    let written = if pipeline.has_string(reference) { reference } else { written };
    pipeline.at_reference(stage, written, Diagnostic { message, ..error })
}

fn external(pipeline: &Pipeline, stage: &Stage, path: &str, except: &Except) -> Origin {
    match expand(path) {
        Ok(path) => {
            let path = pipeline.resolve(&path);
            Origin::Path(Ok(External { path, except: except.clone(), modes: stage.is_command }))
        }
        Err(variable) => Origin::Path(Err((path.into(), variable))),
    }
}

/// The slot of the folder that an index lists.
const ROOT: &str = "root";
/// The output of stages that write the images that their index lists.
const IMAGES: &str = "images";

/// Finds what stage `reference` reads in `slot`, or its own images.
fn locate(
    pipeline: &Pipeline,
    by_name: &HashMap<String, Id>,
    reference: &str,
    slot: &str,
) -> Result<Origin, Diagnostic> {
    let (id, _) = find_output(pipeline, by_name, reference)?;
    let stage = &pipeline.stages[id as usize];
    let input = stage.inputs.iter().find(|input| input.slot == slot);
    if slot == ROOT && input.is_none() && stage.outputs.iter().any(|output| output.name == IMAGES) {
        return Ok(Origin::Output(id, IMAGES.into()));
    }
    let input = input.ok_or_else(|| {
        Diagnostic::new(format!("'{reference}' is a stage of kind '{}', which has no input '{slot}'", stage.kind))
            .help("name a stage of kind 'index' or 'pack'")
    })?;
    match &input.source {
        Source::Path(path) => Ok(external(pipeline, stage, path, &Except::default())),
        Source::Folder { path, except } => Ok(external(pipeline, stage, path, except)),
        Source::Stage(reference) => {
            find_output(pipeline, by_name, reference).map(|(id, output)| Origin::Output(id, output))
        }
    }
}

fn find_output(
    pipeline: &Pipeline,
    by_name: &HashMap<String, Id>,
    reference: &str,
) -> Result<(Id, Box<str>), Diagnostic> {
    let mut head = reference;
    loop {
        if let Some(id) = by_name.get(head) {
            let stage = &pipeline.stages[*id as usize];
            let Some(wanted) = reference[head.len()..].strip_prefix('/') else {
                let first = stage.outputs.first().map_or(METRICS, |o| &o.name);
                return Ok((*id, first.into()));
            };
            let outputs = || stage.outputs.iter().map(|o| &*o.name).chain([METRICS]);
            let path = if stage.is_command { normal(wanted) } else { wanted.into() };
            if outputs().any(|name| name == path) {
                return Ok((*id, path.into()));
            }
            return Err(Diagnostic::new(format!("stage '{head}' has no output '{wanted}'")).nearest(wanted, outputs()));
        }
        match head.rfind('/') {
            Some(slash) => head = &head[..slash],
            None => break,
        }
    }
    let error = Diagnostic::new(format!("no stage is called '{reference}'"));
    let outputs =
        |stage: &Stage| stage.outputs.iter().map(|o| format!("{}/{}", stage.name, o.name)).collect::<Vec<_>>();
    let outputs: Vec<String> = pipeline.stages.iter().flat_map(outputs).collect();
    match nearest(reference, outputs.iter().map(String::as_str)) {
        Some(output) => Err(error.help(format!("did you mean '{output}'?"))),
        None => Err(error.nearest(reference, by_name.keys().map(String::as_str))),
    }
}

fn cycle(pipeline: &Pipeline, graph: &DiGraph<(), ()>) -> Invalid {
    let components = petgraph::algo::tarjan_scc(graph);
    let in_cycle = |c: &&Vec<NodeIndex>| c.len() > 1 || graph.contains_edge(c[0], c[0]);
    let members: HashSet<NodeIndex> =
        components.iter().find(in_cycle).expect("sorting left out a cycle").iter().copied().collect();
    // Every member has a successor inside, so following the lowest one must return to a visited stage.
    let start = *members.iter().min().expect("a cycle has members");
    let mut path = vec![start];
    let back = loop {
        let inside = graph.neighbors(path[path.len() - 1]).filter(|n| members.contains(n));
        let next = inside.min().expect("a strongly connected stage has a successor inside");
        if let Some(back) = path.iter().position(|n| *n == next) {
            break back;
        }
        path.push(next);
    };
    let name = |n: &NodeIndex| pipeline.stages[n.index()].name.as_str();
    let mut names: Vec<&str> = path[back..].iter().map(name).collect();
    names.push(names[0]);
    let at = pipeline.stages[path[back].index()].at;
    let message = format!("the stages form a cycle: {}", names.join(" -> "));
    let error = Diagnostic::new(message).at(at).help("remove one of these inputs");
    pipeline.invalid(error)
}
