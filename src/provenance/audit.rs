//! Audits a result and everything it was computed from. Each step is checked with only digests, signatures and
//! arithmetic. Nothing in the store is trusted, repaired or moved.

use super::{
    check,
    envelope::Verdict,
    evidence::{self, Evidence},
    images::Images,
    keyring::{self, Trust},
    statement::{Descriptor, EXCEPT, Provenance, Statement},
};
use anyhow::{Context, Result, ensure};
use caco_engine::{
    digest::Digest,
    external::External,
    graph::{Graph, Id, Origin},
    key::{Key, Preimage},
    listing::{self, Content, Found},
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

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AuditState")]
pub enum State {
    /// The check passed.
    Pass,
    /// Worth noting, but not a fault.
    Note,
    /// It cannot be checked because the bytes were collected.
    Collected,
    /// The check failed.
    Fail,
}

/// One check of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Check {
    /// What was checked.
    pub check: &'static str,
    /// The outcome.
    pub state: State,
    /// The explanation: where it looked, what it found, and what it expected.
    pub message: String,
}

/// A checked result.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Node {
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The result's key. `None` if it is unknown because an input of the stage is.
    pub key: Option<Key>,
    /// The record that was checked.
    pub record: Option<Box<str>>,
    /// The signer's name in the keyring.
    pub signer: Option<String>,
    /// When it was computed.
    pub started: Option<String>,
    /// The checks.
    pub checks: Vec<Check>,
    /// Its inputs by slot: the index of a node here, or a path.
    pub inputs: BTreeMap<String, Source>,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A result that was also checked, by its index among the nodes.
    Node(usize),
    /// Files outside the store.
    Path(PathBuf),
    /// Unknown.
    Nowhere,
}

/// The outcome of an audit.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Report {
    /// All checked results in topological order.
    pub nodes: Vec<Node>,
    /// The requested results.
    pub targets: Vec<usize>,
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A result that is to be checked.
#[derive(Default)]
pub(super) struct Case {
    pub stage: String,
    pub kind: String,
    pub key: Option<Key>,
    /// The preimage that the pipeline requests. `None` if no pipeline was given.
    pub asked: Option<String>,
    /// The pipeline's own parameters of the stage.
    pub parameters: Option<String>,
    pub evidence: Option<Evidence>,
    pub signed: Signed,
    pub statement: Option<Statement<Provenance>>,
    /// The outputs as signed, or as in the manifest if unsigned.
    pub outputs: Vec<Artifact>,
    pub inputs: Vec<Input>,
    /// Faults found so far.
    pub wrong: Vec<Check>,
}

/// The state of a record's signature.
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
    /// Its digest in the signed statement.
    pub stated: Option<Digest>,
    pub from: InputSource,
}

/// Where an input of a case comes from.
pub(super) enum InputSource {
    Output { case: usize, output: String },
    Data { path: PathBuf, found: Result<Option<Digest>, String> },
    Nowhere,
}

/// Audits results.
pub struct Auditor<'a> {
    pub(super) store: &'a Store,
    pub(super) trust: &'a Trust,
    pub(super) cache: &'a stat::Cache,
    pub(super) registry: &'a Registry,
    pub(super) cases: Vec<Case>,
    pub(super) images: Images,
    by_key: HashMap<Key, usize>,
    targets: Vec<usize>,
    /// All outputs in the store, by digest. Computed when first needed.
    outputs: Option<HashMap<Digest, Vec<(Key, String)>>>,
}

impl<'a> Auditor<'a> {
    /// Creates an auditor that trusts these keys. Unchanged files in the cache are not read again; with an empty cache,
    /// all files are read.
    pub fn new(store: &'a Store, trust: &'a Trust, cache: &'a stat::Cache, registry: &'a Registry) -> Self {
        let (cases, by_key, targets) = (vec![], HashMap::new(), vec![]);
        Auditor { store, trust, cache, registry, cases, images: Images::default(), by_key, targets, outputs: None }
    }

    /// Adds these stages of a pipeline and all that they read from, with the results that the pipeline now requests.
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
                            let fault = self.why_missing(names.get(&stage.name), case);
                            self.cases[case].wrong.push(fault);
                        }
                    }
                    case
                }
                Ask::Missing(missing) => {
                    let message =
                        missing.iter().map(|m| format!("{}: {}", m.slot, m.why)).collect::<Vec<_>>().join("; ");
                    let case = self.last(names.get(&stage.name), fail("inputs", message))?;
                    (self.cases[case].stage, self.cases[case].kind) = (stage.name.clone(), stage.kind.into());
                    case
                }
                Ask::Unknown => {
                    let lacking = graph.sources(id).into_iter().filter(|of| !published.contains_key(of));
                    let lacking: Vec<&str> = lacking.map(|of| graph.stage(of).name.as_str()).collect();
                    let message = format!(
                        "the requested result is unknown, because there is no result of {}",
                        lacking.join(", ")
                    );
                    let case = self.last(names.get(&stage.name), fail("pipeline", message))?;
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

    /// Adds the result of a key and everything that its statement lists as inputs.
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
                if let InputSource::Output { case: source, .. } = input.from
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

    /// Checks everything that was added.
    pub fn report(self) -> Result<Report> {
        let counter = check::Counter::default();
        let checks = self.cases.par_iter().map(|case| check::all(&self, case, &counter)).collect::<Result<Vec<_>>>()?;
        let nodes: Vec<Node> = self.cases.iter().zip(checks).map(|(case, checks)| node(case, checks)).collect();
        let (files, bytes) = counter.read();
        Ok(Report { nodes, targets: self.targets, files, bytes })
    }

    /// The index of the case of a key.
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

    /// Adds the last result of a stage whose key is unknown.
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

    /// Explains why there is no requested result: never computed, removed, or the pipeline has changed since.
    fn why_missing(&self, last: Option<Key>, case: usize) -> Check {
        let case = &self.cases[case];
        let asked = case.asked.as_deref().and_then(|text| serde_json::from_str::<Preimage>(text).ok());
        let before = last.filter(|last| Some(*last) != case.key).and_then(|last| {
            let text = Evidence::of(self.store, last).ok()??.read("preimage.json").ok()??;
            serde_json::from_slice::<Preimage>(&text).ok()
        });
        if let (Some(asked), Some(before), Some(last)) = (asked, before, last) {
            let changes: Vec<String> = why::changes(&before, &asked).iter().map(ToString::to_string).collect();
            let message = format!(
                "the requested result was never computed; the last result ({}) was requested with {}",
                last.0.short(),
                changes.join(", ")
            );
            return fail("pipeline", message);
        }
        let message = "there is no result, and none was collected: it was never computed, or it was removed by hand";
        fail("record", message.into())
    }

    /// The inputs of a record according to its statement. Without a statement, those in its preimage, by digest.
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
            (Some(key), Some(output), _) => InputSource::Output { case: self.case(key)?, output: output.into() },
            (_, _, Some(uri)) if uri.starts_with("file://") => {
                self.data(Path::new(&uri["file://".len()..]), dependency)
            }
            (_, _, Some(uri)) if uri.starts_with("tool:") => self.tool(&uri["tool:".len()..]),
            _ => InputSource::Nowhere,
        };
        Ok(Input { slot: slot.into(), stated, from })
    }

    fn data(&self, path: &Path, dependency: &Descriptor) -> InputSource {
        let except = dependency.annotations.get(EXCEPT).and_then(|except| serde_json::from_value(except.clone()).ok());
        let at = External { except: except.unwrap_or_default(), ..External::whole(path) };
        // Executable bits count for commands alone, and for none in version 0.1.0.
        let digest = |found: Found| match &*found.content {
            Content::Folder(listing) => {
                let ways = [listing.digest(), listing.without_modes().digest(), listing.unmarked()];
                ways.into_iter().find(|way| dependency.blake3() == Some(*way)).unwrap_or(ways[0])
            }
            content => content.digest(),
        };
        let found = listing::of_path(&at, self.cache).map(|found| found.map(digest));
        InputSource::Data { path: at.path, found: found.map_err(|e| e.to_string()) }
    }

    fn tool(&self, name: &str) -> InputSource {
        let found = Tool::of(name, self.cache).map(|tool| Some(tool.digest));
        InputSource::Data { path: format!("{name} on PATH").into(), found }
    }

    /// Another result of this store with an output of this digest, if no signature names the one that was read.
    fn holder(&mut self, digest: Digest, reader: Option<Key>) -> Result<InputSource> {
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
            Some((key, output)) => InputSource::Output { case: self.case(key)?, output },
            None => InputSource::Nowhere,
        })
    }
}

/// A check that failed.
pub(super) fn fail(check: &'static str, message: String) -> Check {
    Check { check, state: State::Fail, message }
}

/// The state of a record's signature, and the signed statement.
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
        Ok(Verdict::Unsigned) => Signed::Broken("the envelope has no signature".into()),
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
        Origin::Output(of, output) => InputSource::Output { case: place[of], output: output.to_string() },
        Origin::Path(Ok(at)) => {
            InputSource::Data { path: at.path.clone(), found: Ok(outside.content(at).map(|content| content.digest())) }
        }
        Origin::Path(Err(_)) => InputSource::Nowhere,
        Origin::Tool(name) => {
            let found = outside.tool(name).map(|tool| Some(tool.digest));
            InputSource::Data { path: format!("{name} on PATH").into(), found }
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
        InputSource::Output { case, .. } => Source::Node(*case),
        InputSource::Data { path, .. } => Source::Path(path.clone()),
        InputSource::Nowhere => Source::Nowhere,
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
    /// The worst outcome.
    pub fn state(&self) -> State {
        self.checks.iter().map(|check| check.state).max().unwrap_or(State::Pass)
    }
}

impl Report {
    /// Whether nothing failed.
    pub fn passes(&self) -> bool {
        self.nodes.iter().all(|node| node.state() != State::Fail)
    }

    /// The worst outcome of a result and of all that it was computed from.
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

    /// Keeps only the wanted nodes.
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

    /// The number of checks with this outcome.
    pub fn count(&self, state: State) -> usize {
        self.nodes.iter().flat_map(|node| &node.checks).filter(|check| check.state == state).count()
    }
}

/// The digest of a file, from the cache if the file is unchanged, and its length.
pub(super) fn digest_of(path: &Path, cache: &stat::Cache) -> Result<(Digest, u64)> {
    let read = || format!("{} cannot be read", path.display());
    let meta = std::fs::metadata(path).with_context(read)?;
    Ok((listing::digest_of(path, &meta, cache)?, meta.len()))
}
