//! One stage: its parameters, its inputs, and its result.

use super::{
    comparison,
    expectation::{self, Expectation},
    name,
    state::State,
};
use anyhow::{Context, Result};
use caco_engine::{
    digest::Digest,
    graph::{Graph, Id, METRICS, Origin},
    key::Key,
    plan::{Plan, Step},
    store::{Published, Store},
};
use caco_measure::metric::{self, Metric};
use caco_pipeline::kind::Registry;
use caco_provenance::keyring::Keyring;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::{collections::HashSet, path::PathBuf};

/// A stage of a pipeline.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// Where the pipeline file has it, as `file:line`.
    pub written_at: String,
    /// What a run would do with it.
    pub state: State,
    /// Its parameters, defaults filled in.
    pub parameters: Value,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// Its result, or its last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<StageResult>,
    /// Of a table with an `expect`: whether it is the published one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expectation: Option<Expectation>,
    /// The digest that an `expect` of this table would have.
    #[serde(skip)]
    pub table: Option<Digest>,
    /// Notes for the caller, one sentence each.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// What a stage reads.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Input {
    /// The stage's name for it.
    pub slot: String,
    /// Where it comes from: `STAGE/OUTPUT`, a path, or a program on PATH.
    pub from: String,
    /// Whether its content joins the key.
    pub hashed: bool,
}

/// The result of a stage.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StageResult {
    /// Whether it is of earlier parameters, inputs or code.
    pub outdated: bool,
    /// Its key.
    pub key: Key,
    /// Which of the records under that key.
    pub record: String,
    /// The folder of the record, with its log.
    pub folder: PathBuf,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// What it measured.
    pub metrics: Vec<Metric>,
    /// How it was made: time, host, threads, determinism class, variables that libraries read. See docs/provenance.md.
    pub made: Option<Value>,
    /// Of a comparison: every metric of its table with the results that it was computed from.
    pub figures: Vec<comparison::Marked>,
}

/// An output of a result.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its length in bytes; of a folder, that of all its files.
    pub bytes: u64,
    /// BLAKE3 of the bytes, or of a folder's listing.
    pub blake3: Digest,
    /// SHA-256 of the same.
    pub sha256: Digest,
    /// The file of the store that holds them.
    pub object: PathBuf,
}

/// A stage of this name.
///
/// # Errors
/// Where there is none, or the store cannot be read.
pub fn stage(graph: &Graph, store: &Store, name: &str, registry: &Registry) -> Result<Stage> {
    let id = name::stage(graph, name)?;
    let plan = Plan::new(graph, &graph.with_sources(&[id]), store, &HashSet::new())?;
    let step = plan.step(id).expect("the stage was planned");
    let shown = match step {
        Step::Hit(published) => Some(name::Shown { published: published.clone(), outdated: false, notes: vec![] }),
        _ => name::shown(graph, id, store)?,
    };
    let hit = match step {
        Step::Hit(published) => Some(published.key),
        _ => None,
    };
    let expectation = expectation::all(graph, &[id], store, &|_| hit)?.pop();
    let stage = graph.stage(id);
    let first = stage.outputs.first().filter(|_| stage.is_comparison);
    let artifact = first.zip(shown.as_ref()).and_then(|(first, shown)| shown.published.output(&first.name));
    let table = artifact.map(|artifact| artifact.blake3);
    let inputs = graph.edges(id).iter();
    let inputs =
        inputs.map(|edge| Input { slot: edge.slot.to_string(), from: origin(graph, &edge.from), hashed: edge.hashed });
    Ok(Stage {
        stage: stage.name.clone(),
        kind: stage.kind.into(),
        version: stage.version,
        written_at: graph.pipeline.place(stage),
        state: State::of(step),
        parameters: serde_json::from_str(stage.parameters()).context("parameters are JSON")?,
        inputs: inputs.collect(),
        result: shown.as_ref().map(|shown| result(graph, id, store, shown, registry)).transpose()?,
        expectation,
        table,
        notes: shown.map(|shown| shown.notes).unwrap_or_default(),
    })
}

/// Where an input comes from, for people.
pub fn origin(graph: &Graph, from: &Origin) -> String {
    match from {
        Origin::Output(of, output) => format!("{}/{output}", graph.stage(*of).name),
        Origin::Path(Ok(at)) => at.path.display().to_string(),
        Origin::Tool(name) => format!("{name} on PATH"),
        Origin::Path(Err((path, variable))) => format!("{path} ({variable} is not set)"),
    }
}

/// What a result measured.
///
/// # Errors
/// Where its metrics cannot be read.
pub fn metrics(store: &Store, published: &Published) -> Result<Vec<Metric>> {
    let Some(output) = published.output(METRICS) else { return Ok(vec![]) };
    let path = store.object(output.blake3);
    metric::read(&path).with_context(|| format!("cannot read the metrics in {}", path.display()))
}

fn result(graph: &Graph, id: Id, store: &Store, shown: &name::Shown, registry: &Registry) -> Result<StageResult> {
    let published = &shown.published;
    let outputs = published.outputs.iter().map(|artifact| Output {
        name: artifact.name.to_string(),
        bytes: artifact.size,
        blake3: artifact.blake3,
        sha256: artifact.sha256,
        object: store.object(artifact.blake3),
    });
    let figures = match graph.stage(id).is_comparison {
        // The metrics of an unsigned comparison, as older versions made them, cannot be traced.
        true => comparison::marked(store, published.key, &Keyring::locate()?.trust_in()?, registry).unwrap_or_default(),
        false => vec![],
    };
    Ok(StageResult {
        outdated: shown.outdated,
        key: published.key,
        record: published.record.to_string(),
        folder: store.record_folder(published),
        outputs: outputs.collect(),
        metrics: metrics(store, published)?,
        made: store.record(published)?,
        figures,
    })
}
