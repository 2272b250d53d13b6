//! From arguments to a pipeline, its graph and a store.

use super::{OfPipelineArgs, OverlayArgs, PipelineArgs, Project};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail};
use caco_engine::{graph::Graph, key::Key, store::Store};
use caco_inspect::name::{self, Output};
use caco_pipeline::pipeline::{Overlay, Pipeline};
use std::path::{Path, PathBuf};

/// Reads a pipeline and joins its stages.
pub fn graph(args: &PipelineArgs, project: &Project) -> Result<Graph> {
    load(&locate(&args.pipeline, project)?, project.root(), &args.overlay)
}

/// The text of a pipeline file with its loops written out.
pub fn expanded(args: &PipelineArgs, project: &Project) -> Result<String> {
    Ok(Pipeline::expand(&locate(&args.pipeline, project)?)?)
}

/// The graph of the pipeline that an option names, or of the one that was run last in this store.
pub fn graph_of(args: &OfPipelineArgs, project: &Project, store: &Store) -> Result<Graph> {
    let Some(pipeline) = &args.pipeline else { return last(args, project, store) };
    load(&locate(pipeline, project)?, project.root(), &args.overlay)
}

fn load(path: &Path, root: &Path, overlay: &OverlayArgs) -> Result<Graph> {
    let overlay = Overlay { profile: overlay.profile.clone(), set: overlay.set.clone() };
    Ok(Graph::new(Pipeline::load(path, &overlay, &REGISTRY)?.in_project(root))?)
}

/// The graph of a pipeline file with one of its profiles.
pub fn graph_with(path: &Path, profile: Option<String>, project: &Project) -> Result<Graph> {
    load(&locate(path, project)?, project.root(), &OverlayArgs { profile, set: vec![] })
}

/// The key of the result that the caller means: see [`name`].
pub fn result(text: &str, args: &OfPipelineArgs, project: &Project, store: &Store) -> Result<Key> {
    if let Some(key) = name::key(text, store)? {
        return Ok(key);
    }
    let graph = graph_of(args, project, store).with_context(|| {
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

/// `tiny` means pipelines/tiny.ron in the project, or else tiny.ron there or here.
fn locate(path: &Path, project: &Project) -> Result<PathBuf> {
    // A folder may be called as a pipeline is.
    if path.exists() && !path.is_dir() {
        return Ok(path.into());
    }
    if let Some(named) = named(path, project) {
        return Ok(named);
    }
    let known: Vec<String> = project.pipelines().iter().map(|path| path.display().to_string()).collect();
    let help = if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) };
    bail!("{} does not exist{help}", path.display())
}

/// The pipeline file that a name without a folder means.
pub fn named(name: &Path, project: &Project) -> Option<PathBuf> {
    let mut file = name.as_os_str().to_owned();
    if name.extension().is_none_or(|ending| ending != "ron") {
        file.push(".ron");
    }
    (name.components().count() == 1).then(|| project.pipeline(Path::new(&file))).flatten()
}

/// What was run last: the file, its project, and what was laid over it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Last {
    pipeline: PathBuf,
    /// Earlier versions did not write it.
    project: Option<PathBuf>,
    profile: Option<String>,
    set: Vec<String>,
}

/// Notes which pipeline is run, for commands that name a stage only.
pub fn remember(pipeline: &Pipeline, store: &Store) {
    let Overlay { profile, set } = pipeline.overlay.clone();
    let last = Last { pipeline: pipeline.file(), project: Some(pipeline.root.clone()), profile, set };
    let text = serde_json::to_vec(&last).expect("plain data is JSON");
    let _ = caco_engine::store::write_aside(&store.root().join("last.json"), &text);
}

fn last(args: &OfPipelineArgs, project: &Project, store: &Store) -> Result<Graph> {
    let text = std::fs::read(store.root().join("last.json")).ok();
    let last: Option<Last> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(last) = last else {
        bail!("no pipeline was run in {} yet; name one with --pipeline", store.root().display())
    };
    let path = project.shown(&last.pipeline);
    let root = last.project.as_deref().unwrap_or(project.root());
    let mut overlay = OverlayArgs { profile: args.overlay.profile.clone().or(last.profile), set: last.set };
    overlay.set.extend(args.overlay.set.iter().cloned());
    load(&path, root, &overlay).with_context(|| format!("the pipeline that was run last ({})", path.display()))
}

/// Opens a store that is there.
pub fn existing(project: &Project) -> Result<Store> {
    if !project.cache().join("VERSION").exists() {
        let cache = project.shown(project.cache());
        bail!("{} is not a store: it has no VERSION file; name one with --cache or CACO_CACHE", cache.display());
    }
    store(project)
}

/// Opens the store.
pub fn store(project: &Project) -> Result<Store> {
    Ok(Store::open(project.cache())?)
}

/// Reads a pipeline and opens the store that is there: at the same time, for each takes a while where there are a hundred
/// thousand stages. A new store is made only once the pipeline is known to be right.
pub fn both(args: &PipelineArgs, project: &Project) -> Result<(Graph, Store)> {
    if !project.cache().join("VERSION").exists() {
        let graph = graph(args, project)?;
        return Ok((graph, store(project)?));
    }
    let (graph, store) = rayon::join(|| graph(args, project), || store(project));
    Ok((graph?, store?))
}
