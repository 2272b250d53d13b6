//! Which result a name means. One rule for every command:
//!
//! 1. A key, or the start of one with six digits or more, means the result under that key.
//! 2. A stage means the result that its pipeline asks for as it stands. The records of the stages that it reads from are
//!    enough to know which one that is: their bytes may have been collected. Where inputs are missing on this machine,
//!    the requested result is unknown; then a stage's last result is taken, and a note says so.
//! 3. Where that result is not there, commands that show ([`shown`]) take the stage's last result and mark it as outdated.
//!    Commands that copy, compare, cite or verify ([`current`]) refuse, and say what to run.

use anyhow::{Context, Result, bail, ensure};
use caco_engine::{
    digest,
    graph::{Graph, Id},
    key::Key,
    names::Names,
    plan::{Ask, Outside, ask},
    store::{Artifact, Published, Store},
};
use caco_pipeline::{diagnostic::Diagnostic, pipeline::Invalid};
use caco_provenance::evidence::Evidence;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// Fewer digits are no start of a key: a stage could be called so.
const LEAST_DIGITS: usize = 6;

/// The results of some stages, and what had to be assumed to find them.
#[derive(Debug, Default)]
pub struct Results {
    /// The result of each stage that has one.
    pub found: HashMap<Id, Published>,
    /// Notes for the caller, one sentence each.
    pub notes: Vec<String>,
}

/// The result that a command shows for a stage.
#[derive(Debug)]
pub struct Shown {
    /// The result.
    pub published: Published,
    /// Whether it is, or may be, of earlier parameters, inputs or code.
    pub outdated: bool,
    /// Notes for the caller, one sentence each.
    pub notes: Vec<String>,
}

/// Whether a text is the start of a key, by its form.
pub fn is_start_of_key(text: &str) -> bool {
    text.len() >= LEAST_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The key that a text is, or is the start of. None: no result's key starts so.
///
/// # Errors
/// Where several keys start so.
pub fn key(text: &str, store: &Store) -> Result<Option<Key>> {
    if let Ok(key) = text.parse() {
        return Ok(Some(key));
    }
    if !is_start_of_key(text) {
        return Ok(None);
    }
    let found: Vec<Key> = store.keys()?.into_iter().filter(|key| key.to_string().starts_with(text)).collect();
    match found.as_slice() {
        [] => Ok(None),
        [key] => Ok(Some(*key)),
        [first, second, ..] => bail!("several results start with '{text}': {first}, {second}; give more digits"),
    }
}

/// The results that a pipeline asks for as it stands, of those of these stages that have one.
///
/// # Errors
/// Where the store cannot be read.
pub fn results(graph: &Graph, ids: &[Id], store: &Store) -> Result<Results> {
    let order = graph.with_sources(ids);
    let outside = Outside::read(graph, &order, &store.stat);
    let names = Names::load(store, &graph.pipeline.name);
    let wanted: HashSet<Id> = ids.iter().copied().collect();
    let (mut known, mut results) = (HashMap::new(), Results::default());
    for id in order {
        let name = &graph.stage(id).name;
        let key = match ask(graph, id, &outside, |of| known.get(&of)) {
            Ask::Known(key, _) => key,
            Ask::Unknown => continue,
            Ask::Missing(missing) => {
                let Some(key) = names.get(name) else { continue };
                let why =
                    missing.first().map_or_else(String::new, |missing| format!(" ({}: {})", missing.slot, missing.why));
                results.notes.push(format!("inputs of '{name}' are missing here{why}; using its last result"));
                key
            }
        };
        let there = store.lookup(key)?.filter(|published| !store.is_broken(published));
        if let Some(published) = there {
            if wanted.contains(&id) {
                results.found.insert(id, published.clone());
            }
            known.insert(id, published);
        } else if let Some(record) = Evidence::of(store, key)? {
            let outputs = record.manifest().map(|manifest| manifest.outputs).unwrap_or_default();
            known.insert(id, Published { key, record: (*record.record).into(), outputs: outputs.into() });
        }
    }
    Ok(results)
}

/// The result that the pipeline asks for of one stage, with the notes of [`results`].
///
/// # Errors
/// Where the stage has no such result.
pub fn current(graph: &Graph, id: Id, store: &Store) -> Result<(Published, Vec<String>)> {
    let mut results = results(graph, &[id], store)?;
    if let Some(published) = results.found.remove(&id) {
        return Ok((published, results.notes));
    }
    let (name, path) = (&graph.stage(id).name, graph.pipeline.path.display());
    let mut why = match Names::load(store, &graph.pipeline.name).get(name) {
        Some(key) => format!(
            "stage '{name}' has no result for {path} as it stands: its last one, {}, has other parameters, inputs or code, or was \
             removed (`caco why '{name}'`)",
            key.0.short()
        ),
        None => format!("stage '{name}' has no result yet"),
    };
    results.notes.iter().for_each(|note| why += &format!(" ({note})"));
    bail!("{why}; run it: {}", command(graph, [name]))
}

/// The result to show for a stage: the one that the pipeline asks for, else its last one. None: it never had one.
///
/// # Errors
/// Where the store cannot be read.
pub fn shown(graph: &Graph, id: Id, store: &Store) -> Result<Option<Shown>> {
    let Results { mut found, mut notes } = results(graph, &[id], store)?;
    if let Some(published) = found.remove(&id) {
        return Ok(Some(Shown { published, outdated: !notes.is_empty(), notes }));
    }
    let name = &graph.stage(id).name;
    let last = Names::load(store, &graph.pipeline.name).get(name);
    let published = last.map(|key| store.lookup(key)).transpose()?.flatten();
    notes.push(format!("using the last result of '{name}', which may have other parameters, inputs or code"));
    Ok(published.map(|published| Shown { published, outdated: true, notes }))
}

/// The output that `STAGE/OUTPUT` names, of the result that the pipeline asks for now.
#[derive(Debug)]
pub struct Output {
    /// The stage.
    pub stage: Id,
    /// The output.
    pub artifact: Artifact,
    /// The notes of [`results`].
    pub notes: Vec<String>,
}

/// Finds an output by `STAGE/OUTPUT`; a stage alone means its first one.
///
/// # Errors
/// Where there is no such stage, output or result, or its bytes are damaged.
pub fn output(text: &str, graph: &Graph, store: &Store) -> Result<Output> {
    let (stage, output) = graph.find_output(text).map_err(|error| in_pipeline(graph, error))?;
    let name = &graph.stage(stage).name;
    let (published, notes) = current(graph, stage, store)?;
    let Some(artifact) = published.output(&output) else { bail!("stage '{name}' wrote no {output}") };
    if !artifact.folder && !store.check_object(artifact.blake3)? {
        bail!("the bytes of '{text}' are damaged or gone; run the stage again");
    }
    Ok(Output { stage, artifact: artifact.clone(), notes })
}

/// As [`output`], which must be called `wanted`, such as `index`. A command may call its outputs as it likes.
///
/// # Errors
/// As [`output`]; and where it is called otherwise.
pub fn output_called(wanted: &str, text: &str, graph: &Graph, store: &Store) -> Result<Output> {
    let output = output(text, graph, store)?;
    let stage = graph.stage(output.stage);
    ensure!(
        *output.artifact.name == *wanted || stage.is_command,
        "'{text}' is output '{}' of a stage of kind '{}'; an output '{wanted}' is needed",
        output.artifact.name,
        stage.kind
    );
    Ok(output)
}

/// The results that hold the bytes of a file, by key.
///
/// # Errors
/// Where the file or the store cannot be read, and where no result holds them.
pub fn holders(path: &Path, store: &Store) -> Result<Vec<Key>> {
    let (blake3, ..) = digest::both_of_file(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut keys = vec![];
    for key in store.keys()? {
        for record in store.records(key)? {
            let Ok(Some(manifest)) = store.read_manifest(key, &record) else { continue };
            let within = |output: &Artifact| {
                output.folder && store.listing(output).is_ok_and(|l| l.files.iter().any(|f| f.digest == blake3))
            };
            if manifest.outputs.iter().any(|output| output.blake3 == blake3 || within(output)) {
                keys.push(key);
            }
        }
    }
    keys.dedup();
    let (root, path) = (store.root().display(), path.display());
    ensure!(!keys.is_empty(), "no result in {root} holds the bytes of {path} (BLAKE3 {})", blake3.short());
    Ok(keys)
}

/// The command that runs some stages alone.
pub fn command(graph: &Graph, stages: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let overlay = &graph.pipeline.overlay;
    let profile = overlay.profile.as_ref().map_or(String::new(), |p| format!(" --profile {p}"));
    let set: String = overlay.set.iter().map(|s| format!(" --set '{s}'")).collect();
    let stages: String = stages.into_iter().map(|stage| format!(" '{}'", stage.as_ref())).collect();
    // Elsewhere another project would be found.
    let root = &graph.pipeline.root;
    let is_inside = std::env::current_dir().is_ok_and(|here| here.starts_with(root));
    let project = if is_inside { String::new() } else { format!(" --project '{}'", root.display()) };
    format!("caco run {}{project}{profile}{set}{stages}", graph.pipeline.path.display())
}

/// The one stage of that name.
///
/// # Errors
/// Where there is none; the error names the pipeline, for the caller may have named none.
pub fn stage(graph: &Graph, name: &str) -> Result<Id> {
    graph.find(name).map_err(|error| in_pipeline(graph, error))
}

/// The stages that names and patterns mean; the pipeline's targets where there are none.
///
/// # Errors
/// Where one fits no stage.
pub fn select(graph: &Graph, patterns: &[String]) -> Result<Vec<Id>> {
    if patterns.is_empty() {
        return Ok(graph.targets());
    }
    graph.select(patterns).map_err(|error| in_pipeline(graph, error))
}

fn in_pipeline(graph: &Graph, error: Diagnostic) -> anyhow::Error {
    let message = format!("{} in {}", error.message, graph.pipeline.path.display());
    plain(Diagnostic { message, ..error })
}

/// An error that points at no line of a file.
pub fn plain(error: Diagnostic) -> anyhow::Error {
    Invalid { errors: vec![error], sources: vec![] }.into()
}
