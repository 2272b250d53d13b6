//! Whether a table is the published one: what `expect` in a pipeline file says.
//!
//! An `expect` is about the experiment that the file describes where it is written: the file as it is, or with the
//! profile that gives another `expect`. With `--set`, another profile or another seed the experiment is another one,
//! and nothing is compared, unless the table keeps its key: then it is computed from the same bytes in the same way.

use anyhow::{Context, Result};
use caco_engine::{
    digest::Digest,
    graph::{Graph, Id},
    key::Key,
    plan::{Plan, Step},
    store::{Published, Store},
};
use caco_pipeline::{
    diagnostic::Diagnostic,
    kind::Expected,
    pipeline::{Invalid, Overlay},
};
use caco_provenance::rerun;
use caco_report::{
    comparison::Comparison,
    difference::{self, Differing},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::HashSet, fs};

/// A table with an `expect`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Expectation {
    /// The stage.
    pub stage: String,
    /// BLAKE3 of the published table.
    pub published: Digest,
    /// BLAKE3 of the table in this store. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// How they compare.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How a table compares with the published one.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It has the same bytes.
    Equal,
    /// It has other bytes.
    Differs {
        /// The cells that differ. Absent if the pipeline file does not say where the published table is.
        #[serde(skip_serializing_if = "Option::is_none")]
        cells: Option<Vec<Differing>>,
        /// How many cells the published table has. Absent together with `cells`.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<usize>,
        /// The determinism classes in which the table's results were computed.
        classes: Vec<String>,
        /// The trainings behind it.
        trainings: Vec<String>,
    },
    /// They were not compared.
    NotCompared {
        /// Why.
        why: String,
    },
}

/// Checks the files that pipeline stages name as their published tables.
///
/// # Errors
/// Where one cannot be read, or is not the table of that digest.
pub fn check(graph: &Graph) -> Result<(), Invalid> {
    let mut errors = vec![];
    for stage in &graph.pipeline.stages {
        let Some(Expected { blake3, table: Some(path), .. }) = &stage.expected else { continue };
        if let Err(error) = published(graph, path, Digest(*blake3)) {
            let at = graph.pipeline.field_at(stage, "expect_table").unwrap_or(stage.at);
            let (message, help) = error;
            errors.push(Diagnostic::new(format!("stage '{}': expect_table {message}", stage.name)).at(at).help(help));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Invalid { errors, sources: graph.pipeline.sources.clone() }) }
}

/// The published table. An error is a message and a way out.
fn published(graph: &Graph, path: &str, digest: Digest) -> Result<Comparison, (String, String)> {
    let copy = "`caco get STAGE FILE` writes the table of a result there; or leave `expect_table` out";
    let file = graph.pipeline.resolve(path);
    let bytes = fs::read(&file).map_err(|e| (format!("names '{path}', which cannot be read: {e}"), copy.into()))?;
    let found = Digest::of(&bytes);
    if found != digest {
        let message = format!("names '{path}', whose digest is blake3:{found}, but `expect` says blake3:{digest}");
        return Err((message, copy.into()));
    }
    serde_json::from_slice(&bytes).map_err(|e| (format!("names '{path}', which is not a table: {e}"), copy.into()))
}

/// What became of the `expect` of each of these stages. `result` says the key of a stage's result, if it has one.
///
/// # Errors
/// Where the store or a published table cannot be read.
pub fn all(graph: &Graph, ids: &[Id], store: &Store, result: &dyn Fn(Id) -> Option<Key>) -> Result<Vec<Expectation>> {
    let mut homes = Homes { graph, store, read: vec![] };
    let of = |id: &Id| Some((*id, graph.stage(*id).expected.as_ref()?));
    let one = |(id, expected): (Id, &Expected)| {
        let found = match result(id) {
            Some(key) => store.lookup(key)?,
            None => None,
        };
        let artifact = found.as_ref().and_then(|found| found.output(expected.output)).map(|a| a.blake3);
        let verdict = match (&found, artifact) {
            (Some(found), Some(artifact)) => verdict(&mut homes, id, expected, found, artifact)?,
            _ => Verdict::NotCompared { why: "it has no result".into() },
        };
        let stage = graph.stage(id).name.clone();
        Ok(Expectation { stage, published: Digest(expected.blake3), found: artifact, verdict })
    };
    ids.iter().filter_map(of).map(one).collect()
}

fn verdict(homes: &mut Homes, id: Id, expected: &Expected, found: &Published, table: Digest) -> Result<Verdict> {
    if let Some(why) = homes.another(id, expected, found.key)? {
        return Ok(Verdict::NotCompared { why });
    }
    if table.0 == expected.blake3 {
        return Ok(Verdict::Equal);
    }
    let (graph, store) = (homes.graph, homes.store);
    let mut cells = None;
    let mut of = None;
    if let Some(path) = &expected.table {
        let published = published(graph, path, Digest(expected.blake3));
        let published = published.map_err(|(message, help)| anyhow::anyhow!("expect_table {message}; {help}"))?;
        let file = store.object(table);
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let here: Comparison = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        of = Some(published.lines.iter().map(|line| line.cells.len()).sum());
        cells = Some(difference::cells(&published, &here));
    }
    let (mut classes, mut trainings) = (vec![], vec![]);
    let sources = graph.with_sources(&[id]);
    let plan = Plan::new(graph, &sources, store, &HashSet::new())?;
    for (of, published) in plan.hits() {
        let stage = graph.stage(of);
        let class = rerun::class(store, published);
        if !class.is_empty() && !classes.contains(&class) {
            classes.push(class);
        }
        if graph.pipeline.registry.find(stage.kind).is_some_and(|kind| kind.training) {
            trainings.push(stage.name.clone());
        }
    }
    Ok(Verdict::Differs { cells, of, classes, trainings })
}

/// The pipelines that an `expect` may be about, each read once.
struct Homes<'g> {
    graph: &'g Graph,
    store: &'g Store,
    read: Vec<(Overlay, Option<Graph>)>,
}

impl Homes<'_> {
    /// Why the experiment is another one than the published, if it is.
    fn another(&mut self, id: Id, expected: &Expected, key: Key) -> Result<Option<String>> {
        let (graph, store) = (self.graph, self.store);
        let (stage, own) = (graph.stage(id), &graph.pipeline.overlay);
        if graph.pipeline.field_at(stage, "expect").is_some_and(|at| at.source() != 0) {
            // The caller gave it with --set, for exactly this experiment.
            return Ok(None);
        }
        for overlay in [Overlay::default(), Overlay { profile: own.profile.clone(), set: vec![] }] {
            if overlay == *own {
                return Ok(None);
            }
            let Some(home) = self.graph_under(&overlay) else { continue };
            let there = home.find(&stage.name).ok().filter(|id| home.stage(*id).expected.as_ref() == Some(expected));
            let Some(there) = there else { continue };
            let plan = Plan::new(home, &home.with_sources(&[there]), store, &HashSet::new())?;
            let changes = changes(&overlay, own);
            return Ok(match plan.step(there) {
                Some(Step::Hit(published)) if published.key == key => None,
                Some(Step::Hit(_) | Step::Run(_)) => Some(format!("with {changes} it is another experiment")),
                _ => Some(format!("with {changes} it may be another experiment: there is no result without")),
            });
        }
        Ok(Some(format!("the pipeline file is not valid without {}", changes(&Overlay::default(), own))))
    }

    /// The same file under other changes. `None` if it is not valid with them.
    fn graph_under(&mut self, overlay: &Overlay) -> Option<&Graph> {
        let known = self.read.iter().position(|(of, _)| of == overlay);
        let place = known.unwrap_or_else(|| {
            let read = self.graph.pipeline.under(overlay).and_then(Graph::new).ok();
            self.read.push((overlay.clone(), read));
            self.read.len() - 1
        });
        self.read[place].1.as_ref()
    }
}

/// What the caller changes, in words.
fn changes(home: &Overlay, own: &Overlay) -> String {
    let profile = own.profile.as_ref().filter(|_| home.profile != own.profile);
    match (profile, own.set.is_empty()) {
        (Some(profile), true) => format!("profile '{profile}'"),
        (Some(profile), false) => format!("profile '{profile}' and --set"),
        (None, _) => "--set".into(),
    }
}
