//! `caco audit`

use super::{
    FAILED, OfPipelineArgs, Project,
    again::{self, Again},
    device::Device,
    open, print_json, print_marked,
};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::{Graph, Id},
    key::Key,
    stat,
    store::Store,
};
use caco_inspect::name;
use caco_measure::number;
use caco_provenance::{
    audit::{Auditor, Report},
    citation,
    keyring::Keyring,
    tree,
};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::{fs, path::Path, process::ExitCode, time::Instant};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco audit pipelines/tiny.ron\n  caco audit linear/short --rerun\n  caco audit pretrain/short --rerun --locate\n  caco audit encoder.safetensors       # find the result with these bytes, and verify it"
)]
pub struct AuditArgs {
    /// A pipeline file, a stage or pattern, a key or its start, or a file
    #[arg(value_name = "PIPELINE|STAGE|KEY|FILE")]
    what: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// If everything holds, run the stage again in a temporary store and compare the bytes
    #[arg(long)]
    rerun: bool,
    /// Name the first step and tensor in which the rerun of a training differs, if the first run kept digests of its steps:
    /// `run: (step_digests: true)`
    #[arg(long, requires = "rerun")]
    locate: bool,
    /// The device for tensors in that run: auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What `caco audit --json` prints.
#[derive(Serialize, JsonSchema)]
pub struct Audited {
    /// Whether everything holds.
    passes: bool,
    /// The same in a sentence.
    summary: String,
    /// Every result with its checks.
    report: Report,
    /// The stages that were run again.
    rerun: Vec<Again>,
}

/// What is to be audited.
enum Target {
    Stages(Box<Graph>, Vec<Id>),
    Keys(Vec<Key>),
}

/// Exit code 1 where anything does not hold.
pub fn main(args: &AuditArgs, project: &Project) -> Result<ExitCode> {
    let begun = Instant::now();
    let path = Path::new(&args.what);
    if path.is_file() && citation::is_bundle(path) {
        return bundle(path, args.json);
    }
    let store = open::existing(project)?;
    let mut target = target(args, project, &store)?;
    if let (Target::Stages(graph, ids), true) = (&target, args.locate) {
        again::refuse_others(graph, ids)?;
    }
    let trust = Keyring::locate()?.trust_in()?;
    // What the store remembers of its files is itself in the store: everything is read.
    let nothing = stat::Cache::load(Path::new(""));
    let mut auditor = Auditor::new(&store, &trust, &nothing, &REGISTRY);
    match &target {
        Target::Stages(graph, ids) => auditor.stages(graph, ids)?,
        Target::Keys(keys) => keys.iter().try_for_each(|key| auditor.key(*key))?,
    }
    let report = auditor.report()?;
    let summary = tree::summary(&report, begun.elapsed().as_secs_f64());
    let rerun = match (&mut target, args.rerun && report.passes()) {
        (Target::Stages(graph, ids), true) => again::stages(graph, ids, &store, args.device, args.locate)?,
        (Target::Keys(_), true) => {
            bail!("--rerun runs a stage of a pipeline; name the stage, and the pipeline with -p")
        }
        (_, false) => vec![],
    };
    let passes = report.passes() && rerun.iter().all(Again::passes);
    show(&Audited { passes, summary, report, rerun }, args.json)
}

/// A file that `caco cite` wrote: it is checked by itself.
fn bundle(path: &Path, json: bool) -> Result<ExitCode> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let trust = Keyring::locate()?.trust_in()?;
    let checked = citation::check(&text, &trust).with_context(|| path.display().to_string())?;
    if json {
        print_json(&checked)?;
    } else {
        let mut text: String = checked.faults.iter().map(|fault| format!("✗ {fault}\n")).collect();
        let (cited, n) = (&checked.cited, checked.statements);
        text += &format!("{}: {} on {}\n", cited.figure, number::plain(cited.measured.value), cited.measured.split);
        text += &match checked.faults.len() {
            0 => format!("✓ {n} statements hold and make one chain, signed by {}\n", checked.signers.join(", ")),
            faults => format!("✗ {n} statements, {faults} faults\n"),
        };
        text += "the bytes themselves are not in this file; a store that holds them can be audited\n";
        print_marked(&text)?;
    }
    Ok(if checked.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn show(audited: &Audited, json: bool) -> Result<ExitCode> {
    if json {
        print_json(audited)?;
    } else {
        let again: String = audited.rerun.iter().map(Again::text).collect();
        print_marked(&format!("{}{}\n{again}", tree::text(&audited.report), audited.summary))?;
    }
    Ok(if audited.passes { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn target(args: &AuditArgs, project: &Project, store: &Store) -> Result<Target> {
    let what = &args.what;
    let path = Path::new(what);
    if path.extension().is_some_and(|ending| ending == "ron")
        || (!path.exists() && open::named(path, project).is_some())
    {
        let pipeline = OfPipelineArgs { pipeline: Some(path.into()), ..args.pipeline.clone() };
        let graph = open::graph_of(&pipeline, project, store)?;
        let ids = graph.targets();
        return Ok(Target::Stages(graph.into(), ids));
    }
    if path.is_file() {
        return name::holders(path, store).map(Target::Keys);
    }
    if name::is_start_of_key(what) {
        return Ok(Target::Keys(vec![open::result(what, &args.pipeline, project, store)?]));
    }
    let graph = open::graph_of(&args.pipeline, project, store).with_context(|| {
        format!("'{what}' is neither a file nor a key, and no pipeline is known that could have such a stage")
    })?;
    let ids = name::select(&graph, std::slice::from_ref(what))?;
    Ok(Target::Stages(graph.into(), ids))
}
