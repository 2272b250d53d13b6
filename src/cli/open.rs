//! From arguments to a pipeline, its graph and a store.

use super::{OfPipelineArgs, OverlayArgs, PipelineArgs, StoreArgs};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail, ensure};
use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    names::Names,
    plan::{Ask, Outside, ask},
    store::{Artifact, Published, Store},
};
use caco_pipeline::{
    diagnostic::Diagnostic,
    pipeline::{Invalid, Overlay, Pipeline},
};
use caco_provenance::evidence::Evidence;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

/// Reads a pipeline and joins its stages.
pub fn graph(args: &PipelineArgs) -> Result<Graph> {
    load(&locate(&args.pipeline)?, &args.overlay)
}

/// The graph of the pipeline that an option names, or of the one that was run last in this store.
pub fn graph_of(args: &OfPipelineArgs, store: &Store) -> Result<Graph> {
    let Some(pipeline) = &args.pipeline else { return last(args, store) };
    load(&locate(pipeline)?, &args.overlay)
}

fn load(path: &Path, overlay: &OverlayArgs) -> Result<Graph> {
    let overlay = Overlay { profile: overlay.profile.clone(), set: overlay.set.clone() };
    Ok(Graph::new(Pipeline::load(path, &overlay, &REGISTRY)?)?)
}

/// The graph of a pipeline file with one of its profiles.
pub fn graph_with(path: &Path, profile: Option<String>) -> Result<Graph> {
    load(&locate(path)?, &OverlayArgs { profile, set: vec![] })
}

/// The key that the caller means: all 64 digits, the start of them, or a stage, whose result that its pipeline asks for now is
/// meant.
pub fn result(text: &str, args: &OfPipelineArgs, store: &Store) -> Result<Key> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let digits = text.len() >= 6 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if digits {
        let found: Vec<Key> = store.keys()?.into_iter().filter(|key| key.to_string().starts_with(text)).collect();
        match found.as_slice() {
            [key] => return Ok(*key),
            [] => {}
            [first, second, ..] => bail!("several results start with '{text}': {first}, {second}; give more digits"),
        }
    }
    let graph = graph_of(args, store).with_context(|| {
        format!(
            "'{text}' is no key in {}, and no pipeline is known of which it could be a stage",
            store.root().display()
        )
    })?;
    let id = stage(&graph, text)?;
    Ok(current(&graph, id, store)?.key)
}

/// The results that a pipeline asks for as it stands, of those of its stages that have one. Of a stage that they read from, its
/// record is enough: the bytes may have been collected. Where inputs are missing here, nobody knows what is asked for; then a
/// stage's last result is taken, and a line on stderr says so.
pub fn results(graph: &Graph, ids: &[Id], store: &Store) -> Result<HashMap<Id, Published>> {
    let order = graph.with_sources(ids);
    let outside = Outside::read(graph, &order, &store.stat);
    let names = Names::load(store, &graph.pipeline.name);
    let wanted: HashSet<Id> = ids.iter().copied().collect();
    let (mut known, mut found) = (HashMap::new(), HashMap::new());
    for id in order {
        let name = &graph.stage(id).name;
        let key = match ask(graph, id, &outside, |of| known.get(&of)) {
            Ask::Known(key, _) => key,
            Ask::Unknown => continue,
            Ask::Missing(missing) => {
                let Some(key) = names.get(name) else { continue };
                let why =
                    missing.first().map_or_else(String::new, |missing| format!(" ({}: {})", missing.slot, missing.why));
                eprintln!(
                    "inputs of '{name}' are missing here{why}; its last result is taken for the one that is asked for"
                );
                key
            }
        };
        let there = store.lookup(key)?.filter(|published| !store.is_broken(published));
        if let Some(published) = there {
            if wanted.contains(&id) {
                found.insert(id, published.clone());
            }
            known.insert(id, published);
        } else if let Some(record) = Evidence::of(store, key)? {
            let outputs = record.manifest().map(|manifest| manifest.outputs).unwrap_or_default();
            known.insert(id, Published { key, record: (*record.record).into(), outputs: outputs.into() });
        }
    }
    Ok(found)
}

/// As [`results`], of one stage; an error where it has none.
fn current(graph: &Graph, id: Id, store: &Store) -> Result<Published> {
    if let Some(published) = results(graph, &[id], store)?.remove(&id) {
        return Ok(published);
    }
    let (name, path) = (&graph.stage(id).name, graph.pipeline.path.display());
    let asked = match Names::load(store, &graph.pipeline.name).get(name) {
        Some(key) => format!(
            "stage '{name}' has no result of what {path} asks for now (its last one, {}, is of other parameters, inputs or code, or is \
             gone; `caco why '{name}'`)",
            key.0.short()
        ),
        None => format!("stage '{name}' has no result yet"),
    };
    bail!("{asked}; run it: caco run {path} '{name}'")
}

/// As [`output`], which must be one of this name, such as `index`; a command's is believed to be.
pub fn output_named(wanted: &str, text: &str, graph: &Graph, store: &Store) -> Result<(Id, Artifact)> {
    let (id, artifact) = output(text, graph, store)?;
    let stage = graph.stage(id);
    let fits = *artifact.name == *wanted || stage.is_command;
    ensure!(
        fits,
        "'{text}' is output '{}' of a stage of kind '{}'; an output '{wanted}' is needed",
        artifact.name,
        stage.kind
    );
    Ok((id, artifact))
}

/// The output that `STAGE/OUTPUT` names, of the result that the pipeline asks for now, and its stage.
pub fn output(text: &str, graph: &Graph, store: &Store) -> Result<(Id, Artifact)> {
    let (id, output) = graph.find_output(text).map_err(|error| of_pipeline(graph, error))?;
    let name = &graph.stage(id).name;
    let published = current(graph, id, store)?;
    let Some(artifact) = published.output(&output) else { bail!("stage '{name}' wrote no {output}") };
    if !artifact.folder && !store.check_object(artifact.blake3)? {
        bail!("the bytes of '{text}' are damaged or gone; run the stage again");
    }
    Ok((id, artifact.clone()))
}

/// `tiny` means pipelines/tiny.ron.
fn locate(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.into());
    }
    let named = Path::new("pipelines").join(path).with_extension("ron");
    if path.components().count() == 1 && named.exists() {
        return Ok(named);
    }
    let known = std::fs::read_dir("pipelines").into_iter().flatten().flatten();
    let mut known: Vec<String> =
        known.map(|e| e.path().display().to_string()).filter(|p| p.ends_with(".ron")).collect();
    known.sort();
    let help = if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) };
    bail!("{} does not exist{help}", path.display())
}

/// What was run last: the file and what was laid over it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Last {
    pipeline: PathBuf,
    profile: Option<String>,
    set: Vec<String>,
}

/// Notes which pipeline is run, for commands that name a stage only.
pub fn remember(args: &PipelineArgs, store: &Store) {
    let pipeline = locate(&args.pipeline).and_then(|p| Ok(std::path::absolute(p)?));
    let Ok(pipeline) = pipeline else { return };
    let last = Last { pipeline, profile: args.overlay.profile.clone(), set: args.overlay.set.clone() };
    let text = serde_json::to_vec(&last).expect("plain data is JSON");
    let _ = caco_engine::store::write_aside(&store.root().join("last.json"), &text);
}

fn last(args: &OfPipelineArgs, store: &Store) -> Result<Graph> {
    let text = std::fs::read(store.root().join("last.json")).ok();
    let last: Option<Last> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(last) = last else {
        bail!("no pipeline was run in {} yet; name one with --pipeline", store.root().display())
    };
    let here = std::env::current_dir().ok();
    let path = here.and_then(|h| last.pipeline.strip_prefix(h).ok().map(Path::to_path_buf)).unwrap_or(last.pipeline);
    let mut overlay = OverlayArgs { profile: args.overlay.profile.clone().or(last.profile), set: last.set };
    overlay.set.extend(args.overlay.set.iter().cloned());
    load(&path, &overlay).with_context(|| format!("the pipeline that was run last ({})", path.display()))
}

/// Opens a store that is there.
pub fn existing(args: &StoreArgs) -> Result<Store> {
    if !args.cache.join("VERSION").exists() {
        bail!("{} is no store: it holds no VERSION; name one with --cache or CACO_CACHE", args.cache.display());
    }
    store(args)
}

/// Opens the store.
pub fn store(args: &StoreArgs) -> Result<Store> {
    Ok(Store::open(&args.cache)?)
}

/// Reads a pipeline and opens the store that is there: at the same time, for each takes a while where there are a hundred
/// thousand stages. A new store is made only once the pipeline is known to be right.
pub fn both(args: &PipelineArgs, at: &StoreArgs) -> Result<(Graph, Store)> {
    if !at.cache.join("VERSION").exists() {
        let graph = graph(args)?;
        return Ok((graph, store(at)?));
    }
    let (graph, store) = rayon::join(|| graph(args), || store(at));
    Ok((graph?, store?))
}

/// The stages that the caller means: names, patterns, or the pipeline's targets.
pub fn select(graph: &Graph, patterns: &[String]) -> Result<Vec<Id>> {
    if patterns.is_empty() {
        return Ok(graph.targets());
    }
    graph.select(patterns).map_err(|error| of_pipeline(graph, error))
}

/// The one stage of that name.
pub fn stage(graph: &Graph, name: &str) -> Result<Id> {
    graph.find(name).map_err(|error| of_pipeline(graph, error))
}

/// An error that says which pipeline was looked at: the caller may have named none.
fn of_pipeline(graph: &Graph, error: Diagnostic) -> anyhow::Error {
    let message = format!("{}, in {}", error.message, graph.pipeline.path.display());
    plain(Diagnostic { message, ..error })
}

/// An error that points at no line.
pub fn plain(error: Diagnostic) -> anyhow::Error {
    Invalid { errors: vec![error], sources: vec![] }.into()
}
