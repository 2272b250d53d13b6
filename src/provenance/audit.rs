//! From a result to all it was made from, each step checked by nothing but digests, signatures and arithmetic. Nothing in
//! the store is believed, mended or moved.

use super::{
    check,
    envelope::Verdict,
    evidence::{self, Evidence},
    images::Images,
    keyring::{self, Trust},
    statement::{Descriptor, Provenance, Statement},
};
use anyhow::{Context, Result, ensure};
use caco_engine::{
    digest::Digest,
    graph::{From as Origin, Graph, Id},
    key::{Key, Preimage},
    listing,
    names::Names,
    plan::{Ask, Outside, ask},
    stat,
    store::{Artifact, Published, Store},
    tool::Tool,
    why,
};
use caco_pipeline::kind::Registry;
use rayon::prelude::*;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds.
    Pass,
    /// Worth knowing, and no fault.
    Note,
    /// It cannot be looked at: the bytes were collected.
    Collected,
    /// It does not hold.
    Fail,
}

/// One thing that was checked of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Check {
    /// What was checked.
    pub check: &'static str,
    /// What was found.
    pub state: State,
    /// In words: where, what was found, what should be.
    pub told: String,
}

/// A result, checked.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Node {
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The result's key. None: it is not known, for what the stage reads is not.
    pub key: Option<Key>,
    /// The record that was looked at.
    pub record: Option<Box<str>>,
    /// Who signed, as the keyring calls them.
    pub signer: Option<String>,
    /// When it was made.
    pub started: Option<String>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What it was made from, by slot: the number of a node here, or a path.
    pub inputs: BTreeMap<String, Source>,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A result that was checked too, by its place among the nodes.
    Node(usize),
    /// Files outside the store.
    Path(PathBuf),
    /// Nothing that is known.
    Nowhere,
}

/// What an audit found.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Report {
    /// Every result that was looked at, each behind all it was made from.
    pub nodes: Vec<Node>,
    /// Those that were asked about.
    pub targets: Vec<usize>,
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A result on its way to being checked.
#[derive(Default)]
pub(super) struct Case {
    pub stage: String,
    pub kind: String,
    pub key: Option<Key>,
    /// What the pipeline asks for, as a preimage. None: no pipeline was given.
    pub asked: Option<String>,
    /// The pipeline's own parameters of the stage.
    pub parameters: Option<String>,
    pub evidence: Option<Evidence>,
    pub signed: Signed,
    pub statement: Option<Statement<Provenance>>,
    /// What is known of the outputs: what was signed, or where nobody signed what the manifest says.
    pub outputs: Vec<Artifact>,
    pub inputs: Vec<Input>,
    /// What is wrong already.
    pub wrong: Vec<Check>,
}

/// What a record's signature is worth.
#[derive(Default)]
pub(super) enum Signed {
    Trusted(String),
    Stranger {
        id: String,
        host: String,
        holds: bool,
    },
    Broken(String),
    #[default]
    Unsigned,
}

/// One input of a case.
pub(super) struct Input {
    pub slot: String,
    /// What the signed statement says of it.
    pub stated: Option<Digest>,
    pub from: From,
}

pub(super) enum From {
    Output { case: usize, output: String },
    Data { path: PathBuf, found: Result<Option<Digest>, String> },
    Nowhere,
}

/// Looks at results.
pub struct Auditor<'a> {
    pub(super) store: &'a Store,
    pub(super) trust: &'a Trust,
    pub(super) cache: &'a stat::Cache,
    pub(super) registry: &'a Registry,
    pub(super) cases: Vec<Case>,
    pub(super) images: Images,
    by_key: HashMap<Key, usize>,
    targets: Vec<usize>,
    /// Every output in the store, by digest. Made when first needed.
    outputs: Option<HashMap<Digest, Vec<(Key, String)>>>,
}

impl<'a> Auditor<'a> {
    /// Believes these keys. Files that the cache knows unchanged are not read again; an empty one reads all.
    pub fn new(store: &'a Store, trust: &'a Trust, cache: &'a stat::Cache, registry: &'a Registry) -> Self {
        let (cases, by_key, targets) = (vec![], HashMap::new(), vec![]);
        Auditor { store, trust, cache, registry, cases, images: Images::default(), by_key, targets, outputs: None }
    }

    /// Takes in these stages of a pipeline and all they read from: the results that the pipeline asks for as it stands.
    pub fn stages(&mut self, graph: &Graph, ids: &[Id]) -> Result<()> {
        let order = graph.with_sources(ids);
        let outside = Outside::read(graph, &order, self.cache);
        let names = Names::load(self.store, &graph.pipeline.name);
        let mut published: HashMap<Id, Published> = HashMap::new();
        let mut place: HashMap<Id, usize> = HashMap::new();
        for id in order {
            let stage = graph.stage(id);
            let case = match ask(graph, id, &outside, |of| published.get(&of)) {
                Ask::Known(key, text) => {
                    let case = self.case(key)?;
                    let found = &mut self.cases[case];
                    if found.asked.is_none() {
                        (found.stage, found.kind) = (stage.name.clone(), stage.kind.into());
                        found.asked = Some(text);
                        found.parameters = Some(stage.parameters().into());
                        let inputs = inputs_of_graph(graph, id, &place, &outside, found.statement.as_ref());
                        found.inputs = inputs;
                        if found.evidence.is_none() {
                            let told = self.why_missing(names.get(&stage.name), case);
                            self.cases[case].wrong.push(told);
                        }
                    }
                    case
                }
                Ask::Missing(missing) => {
                    let told = missing.iter().map(|m| format!("{}: {}", m.slot, m.why)).collect::<Vec<_>>().join("; ");
                    let case = self.last(names.get(&stage.name), fail("inputs", told))?;
                    (self.cases[case].stage, self.cases[case].kind) = (stage.name.clone(), stage.kind.into());
                    case
                }
                Ask::Unknown => {
                    let lacking = graph.sources(id).into_iter().filter(|of| !published.contains_key(of));
                    let lacking: Vec<&str> = lacking.map(|of| graph.stage(of).name.as_str()).collect();
                    let told = format!(
                        "what the pipeline asks for is not known, for there is no result of {}",
                        lacking.join(", ")
                    );
                    let case = self.last(names.get(&stage.name), fail("pipeline", told))?;
                    (self.cases[case].stage, self.cases[case].kind) = (stage.name.clone(), stage.kind.into());
                    case
                }
            };
            place.insert(id, case);
            let found = &self.cases[case];
            if let (Some(key), Some(evidence)) = (found.key, &found.evidence) {
                let outputs = found.outputs.clone().into();
                published.insert(id, Published { key, record: (*evidence.record).into(), outputs });
            }
        }
        self.targets.extend(ids.iter().map(|id| place[id]));
        Ok(())
    }

    /// Takes in the result under a key and all that its statement says it was made from.
    pub fn key(&mut self, key: Key) -> Result<()> {
        let first = self.case(key)?;
        let found = &self.cases[first];
        let root = self.store.root().display();
        ensure!(
            found.evidence.is_some() || !found.wrong.is_empty(),
            "key {key} has no result in {root}, and none was collected"
        );
        self.targets.push(first);
        let mut open = vec![first];
        let mut seen = vec![first];
        while let Some(case) = open.pop() {
            let inputs = self.inputs_of_record(case)?;
            for input in &inputs {
                if let From::Output { case: source, .. } = input.from
                    && !seen.contains(&source)
                {
                    seen.push(source);
                    open.push(source);
                }
            }
            self.cases[case].inputs = inputs;
        }
        Ok(())
    }

    /// Checks everything that was taken in.
    pub fn report(self) -> Result<Report> {
        let counter = check::Counter::default();
        let checks = self.cases.par_iter().map(|case| check::all(&self, case, &counter)).collect::<Result<Vec<_>>>()?;
        let nodes: Vec<Node> = self.cases.iter().zip(checks).map(|(case, checks)| node(case, checks)).collect();
        let (files, bytes) = counter.read();
        Ok(Report { nodes, targets: self.targets, files, bytes })
    }

    /// The place of the result under a key.
    fn case(&mut self, key: Key) -> Result<usize> {
        if let Some(known) = self.by_key.get(&key) {
            return Ok(*known);
        }
        let mut case = Case { key: Some(key), ..Case::default() };
        match Evidence::of(self.store, key) {
            Ok(evidence) => case.evidence = evidence,
            Err(error) => case.wrong.push(fail("record", format!("{error:#}"))),
        }
        if let Some(evidence) = &case.evidence {
            (case.signed, case.statement) = signature(evidence, self.trust);
            let signed = case.statement.as_ref().filter(|_| matches!(case.signed, Signed::Trusted(_)));
            let signed = signed.and_then(|statement| evidence::stated(statement).ok());
            case.outputs = match signed {
                Some(outputs) => outputs,
                None => evidence.manifest().map(|manifest| manifest.outputs).unwrap_or_default(),
            };
            let made = evidence.made();
            let said = |name: &str| made[name].as_str().unwrap_or_default().to_string();
            (case.stage, case.kind) = (said("stage"), said("kind"));
            if let Some(statement) = &case.statement {
                let external = &statement.predicate.build_definition.external_parameters;
                (case.stage, case.kind) = (external.stage.clone(), external.preimage.kind.clone());
            }
        }
        self.cases.push(case);
        self.by_key.insert(key, self.cases.len() - 1);
        Ok(self.cases.len() - 1)
    }

    /// A stage whose key cannot be known: its last result, which is looked at all the same.
    fn last(&mut self, key: Option<Key>, why: Check) -> Result<usize> {
        if let Some(key) = key {
            let case = self.case(key)?;
            if self.cases[case].evidence.is_some() {
                self.cases[case].inputs = self.inputs_of_record(case)?;
                self.cases[case].wrong.push(why);
                return Ok(case);
            }
        }
        self.cases.push(Case { wrong: vec![why], ..Case::default() });
        Ok(self.cases.len() - 1)
    }

    /// What the pipeline asks for has no result: never made, removed, or the pipeline was changed since.
    fn why_missing(&self, last: Option<Key>, case: usize) -> Check {
        let case = &self.cases[case];
        let asked = case.asked.as_deref().and_then(|text| serde_json::from_str::<Preimage>(text).ok());
        let before = last.filter(|last| Some(*last) != case.key).and_then(|last| {
            let text = Evidence::of(self.store, last).ok()??.read("preimage.json").ok()??;
            serde_json::from_slice::<Preimage>(&text).ok()
        });
        if let (Some(asked), Some(before), Some(last)) = (asked, before, last) {
            let changes: Vec<String> = why::changes(&before, &asked).iter().map(ToString::to_string).collect();
            let told = format!(
                "what the pipeline asks for was never made; its last result ({}) was asked for with {}",
                last.0.short(),
                changes.join(", ")
            );
            return fail("pipeline", told);
        }
        let told = "there is no result, and none was collected: it was never made, or somebody removed it";
        fail("record", told.into())
    }

    /// What a record's statement says that it was made from; where there is none, what its preimage says, by digest.
    fn inputs_of_record(&mut self, case: usize) -> Result<Vec<Input>> {
        if let Some(statement) = self.cases[case].statement.clone() {
            let dependencies = statement.predicate.build_definition.resolved_dependencies;
            return dependencies
                .iter()
                .filter_map(|d| Some((d.noted("slot")?, d)))
                .map(|(slot, d)| self.input(slot, d))
                .collect();
        }
        let key = self.cases[case].key;
        let preimage = self.cases[case].evidence.as_ref().map(|evidence| evidence.read("preimage.json")).transpose()?;
        let preimage = preimage.flatten().and_then(|text| serde_json::from_slice::<Preimage>(&text).ok());
        let slots = preimage.map(|preimage| preimage.inputs).unwrap_or_default();
        slots
            .into_iter()
            .map(|(slot, digest)| Ok(Input { slot, stated: None, from: self.holder(digest, key)? }))
            .collect()
    }

    fn input(&mut self, slot: &str, dependency: &Descriptor) -> Result<Input> {
        let stated = dependency.blake3();
        let key = dependency.noted("key").and_then(|key| key.parse::<Key>().ok());
        let from = match (key, dependency.noted("output"), dependency.uri.as_deref()) {
            (Some(key), Some(output), _) => From::Output { case: self.case(key)?, output: output.into() },
            (_, _, Some(uri)) if uri.starts_with("file://") => self.data(Path::new(&uri["file://".len()..])),
            (_, _, Some(uri)) if uri.starts_with("tool:") => self.tool(&uri["tool:".len()..]),
            _ => From::Nowhere,
        };
        Ok(Input { slot: slot.into(), stated, from })
    }

    fn data(&self, path: &Path) -> From {
        let found = listing::of_path(path, self.cache).map(|content| content.map(|c| c.digest()));
        From::Data { path: path.into(), found: found.map_err(|e| e.to_string()) }
    }

    fn tool(&self, name: &str) -> From {
        let found = Tool::of(name, self.cache).map(|tool| Some(tool.digest));
        From::Data { path: format!("{name} on PATH").into(), found }
    }

    /// Another result of this store that has an output of this digest: nothing was signed that names the one that was read.
    fn holder(&mut self, digest: Digest, reader: Option<Key>) -> Result<From> {
        if self.outputs.is_none() {
            let mut outputs: HashMap<Digest, Vec<(Key, String)>> = HashMap::new();
            for key in self.store.keys()? {
                let Some(evidence) = Evidence::of(self.store, key)? else { continue };
                for output in evidence.manifest().map(|manifest| manifest.outputs).unwrap_or_default() {
                    outputs.entry(output.blake3).or_default().push((key, output.name.to_string()));
                }
            }
            self.outputs = Some(outputs);
        }
        let holders = self.outputs.as_ref().and_then(|outputs| outputs.get(&digest));
        let found = holders.and_then(|holders| holders.iter().find(|(key, _)| Some(*key) != reader)).cloned();
        Ok(match found {
            Some((key, output)) => From::Output { case: self.case(key)?, output },
            None => From::Nowhere,
        })
    }
}

/// A check that failed.
pub(super) fn fail(check: &'static str, told: String) -> Check {
    Check { check, state: State::Fail, told }
}

/// What a record's signature is worth, and what was signed.
pub(super) fn signature(evidence: &Evidence, trust: &Trust) -> (Signed, Option<Statement<Provenance>>) {
    let envelope = match evidence.envelope() {
        Ok(Some(envelope)) => envelope,
        Ok(None) => return (Signed::Unsigned, None),
        Err(error) => return (Signed::Broken(format!("{error:#}")), None),
    };
    let statement = evidence::provenance(&envelope);
    let signed = match envelope.verify(trust) {
        Err(error) => Signed::Broken(format!("{error:#}")),
        Ok(Verdict::Trusted(known)) => match &statement {
            Ok(_) => Signed::Trusted(known.name.clone()),
            Err(error) => Signed::Broken(format!("{error:#}")),
        },
        Ok(Verdict::Broken(known)) => Signed::Broken(format!("it is not what the key '{}' signed", known.name)),
        Ok(Verdict::Unsigned) => Signed::Broken("the envelope holds no signature".into()),
        Ok(Verdict::Stranger(id)) => {
            let builder = statement.as_ref().ok().map(|s| &s.predicate.run_details.builder);
            let key = builder.and_then(|builder| keyring::public(&builder.public_key).ok());
            let holds = key.is_some_and(|key| envelope.is_signed_by(&key));
            Signed::Stranger { id, host: builder.map(|b| b.host.clone()).unwrap_or_default(), holds }
        }
    };
    (signed, statement.ok())
}

fn inputs_of_graph(
    graph: &Graph,
    id: Id,
    place: &HashMap<Id, usize>,
    outside: &Outside,
    statement: Option<&Statement<Provenance>>,
) -> Vec<Input> {
    let dependencies = statement.map(|s| s.predicate.build_definition.resolved_dependencies.as_slice());
    let stated = |slot: &str| {
        dependencies.unwrap_or_default().iter().find(|d| d.noted("slot") == Some(slot)).and_then(Descriptor::blake3)
    };
    let from = |origin: &Origin| match origin {
        Origin::Output(of, output) => From::Output { case: place[of], output: output.to_string() },
        Origin::Path(Ok(path)) => {
            From::Data { path: path.clone(), found: Ok(outside.content(path).map(|content| content.digest())) }
        }
        Origin::Path(Err(_)) => From::Nowhere,
        Origin::Tool(name) => {
            let found = outside.tool(name).map(|tool| Some(tool.digest));
            From::Data { path: format!("{name} on PATH").into(), found }
        }
    };
    let input = |edge: &caco_engine::graph::Edge| Input {
        slot: edge.slot.to_string(),
        stated: stated(&edge.slot),
        from: from(&edge.from),
    };
    graph.edges(id).iter().map(input).collect()
}

fn node(case: &Case, checks: Vec<Check>) -> Node {
    let source = |input: &Input| match &input.from {
        From::Output { case, .. } => Source::Node(*case),
        From::Data { path, .. } => Source::Path(path.clone()),
        From::Nowhere => Source::Nowhere,
    };
    let signer = match &case.signed {
        Signed::Trusted(name) => Some(name.clone()),
        _ => None,
    };
    Node {
        stage: case.stage.clone(),
        kind: case.kind.clone(),
        key: case.key,
        record: case.evidence.as_ref().map(|evidence| evidence.record.clone()),
        signer,
        started: case.statement.as_ref().map(|s| s.predicate.run_details.metadata.started_on.clone()),
        checks,
        inputs: case.inputs.iter().map(|input| (input.slot.clone(), source(input))).collect(),
    }
}

impl Node {
    /// The worst that was found.
    pub fn state(&self) -> State {
        self.checks.iter().map(|check| check.state).max().unwrap_or(State::Pass)
    }
}

impl Report {
    /// Whether nothing failed.
    pub fn passes(&self) -> bool {
        self.nodes.iter().all(|node| node.state() != State::Fail)
    }

    /// The worst that was found of a result and of all it was made from.
    pub fn verdict(&self, key: Key) -> Option<State> {
        let first = self.nodes.iter().position(|node| node.key == Some(key))?;
        let (mut open, mut seen, mut worst) = (vec![first], vec![false; self.nodes.len()], State::Pass);
        while let Some(i) = open.pop() {
            if std::mem::replace(&mut seen[i], true) {
                continue;
            }
            worst = worst.max(self.nodes[i].state());
            open.extend(self.nodes[i].inputs.values().filter_map(|source| match source {
                Source::Node(i) => Some(*i),
                _ => None,
            }));
        }
        Some(worst)
    }

    /// The nodes that are wanted, and nothing else.
    pub fn only(mut self, wanted: &[bool]) -> Report {
        let mut place = vec![None; wanted.len()];
        let kept = (0..wanted.len()).filter(|i| wanted[*i]);
        kept.enumerate().for_each(|(new, old)| place[old] = Some(new));
        let mut kept = wanted.iter();
        self.nodes.retain(|_| kept.next() == Some(&true));
        for node in &mut self.nodes {
            node.inputs.retain(|_, source| match source {
                Source::Node(old) => match place[*old] {
                    Some(new) => {
                        *old = new;
                        true
                    }
                    None => false,
                },
                _ => true,
            });
        }
        self.targets = self.targets.iter().filter_map(|old| place[*old]).collect();
        self
    }

    /// How many checks came out so.
    pub fn count(&self, state: State) -> usize {
        self.nodes.iter().flat_map(|node| &node.checks).filter(|check| check.state == state).count()
    }
}

/// The digest of a file, by the cache where that knows it unchanged, and its length.
pub(super) fn digest_of(path: &Path, cache: &stat::Cache) -> Result<(Digest, u64)> {
    let read = || format!("{} cannot be read", path.display());
    let meta = std::fs::metadata(path).with_context(read)?;
    Ok((listing::digest_of(path, &meta, cache)?, meta.len()))
}
