//! From arguments to a pipeline, its graph and a store.

use super::{OfPipelineArgs, OverlayArgs, PipelineArgs, StoreArgs};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail};
use caco_engine::{graph::Graph, key::Key, store::Store};
use caco_inspect::name::{self, Output};
use caco_pipeline::pipeline::{Overlay, Pipeline};
use std::path::{Path, PathBuf};

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

/// The key of the result that the caller means: see [`name`].
pub fn result(text: &str, args: &OfPipelineArgs, store: &Store) -> Result<Key> {
    if let Some(key) = name::key(text, store)? {
        return Ok(key);
    }
    let graph = graph_of(args, store).with_context(|| {
        format!(
            "'{text}' is not a key in {}, and no pipeline is known that could have such a stage",
            store.root().display()
        )
    })?;
    let (published, notes) = name::current(&graph, name::stage(&graph, text)?, store)?;
    note(&notes);
    Ok(published.key)
}

/// The output that `STAGE/OUTPUT` names: see [`name::output`].
pub fn output(text: &str, graph: &Graph, store: &Store) -> Result<Output> {
    let output = name::output(text, graph, store)?;
    note(&output.notes);
    Ok(output)
}

/// As [`output`], which must be called `wanted`.
pub fn output_called(wanted: &str, text: &str, graph: &Graph, store: &Store) -> Result<Output> {
    let output = name::output_called(wanted, text, graph, store)?;
    note(&output.notes);
    Ok(output)
}

/// Prints what had to be assumed.
pub fn note(notes: &[String]) {
    notes.iter().for_each(|note| say!("note: {note}"));
}

/// `tiny` means pipelines/tiny.ron, or else tiny.ron.
fn locate(path: &Path) -> Result<PathBuf> {
    // A folder may be called as a pipeline is.
    if path.exists() && !path.is_dir() {
        return Ok(path.into());
    }
    let mut name = path.as_os_str().to_owned();
    if path.extension().is_none_or(|ending| ending != "ron") {
        name.push(".ron");
    }
    let mut named = FOLDERS.iter().map(|folder| Path::new(folder).join(&name));
    if path.components().count() == 1
        && let Some(named) = named.find(|named| named.is_file())
    {
        return Ok(named);
    }
    let known = FOLDERS.iter().flat_map(std::fs::read_dir).flatten().flatten();
    let known = known.map(|e| e.path().display().to_string()).filter(|p| p.ends_with(".ron"));
    let mut known: Vec<String> = known.map(|p| p.trim_start_matches("./").to_string()).collect();
    known.sort();
    let help = if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) };
    bail!("{} does not exist{help}", path.display())
}

/// Where pipelines are looked for by name, in this order.
const FOLDERS: [&str; 2] = ["pipelines", "."];

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
        bail!("{} is not a store: it has no VERSION file; name one with --cache or CACO_CACHE", args.cache.display());
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
