//! `caco show`

use super::{OfPipelineArgs, StoreArgs, open, print, print_json};
use anyhow::{Context, Result};
use caco_engine::{
    graph::{Graph, Id, METRICS, Origin},
    names::Names,
    plan::{Plan, Step},
    store::{Published, Store},
};
use caco_measure::metric;
use caco_provenance::keyring::Keyring;
use clap::Args;
use serde_json::{Value, json};
use std::{collections::HashSet, fmt::Write, process::ExitCode};

#[derive(Args)]
pub struct ShowArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Show it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &ShowArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let id = open::stage(&graph, &args.stage)?;
    let plan = Plan::new(&graph, &graph.with_sources(&[id]), &store, &HashSet::new())?;
    let step = plan.steps.iter().find(|(other, _)| *other == id).map(|(_, step)| step).expect("the stage was planned");
    let (state, published) = match step {
        Step::Hit(published) => ("done", Some(published.clone())),
        Step::Blocked(_) | Step::Behind(_) => ("inputs missing", None),
        Step::Run(_) | Step::MayRun => ("to run", None),
    };
    // What is to run has an earlier result perhaps; it is shown as such.
    let earlier =
        || Names::load(&store, &graph.pipeline.name).get(&args.stage).and_then(|key| store.lookup(key).ok().flatten());
    let outdated = published.is_none();
    let published = published.or_else(earlier);
    let shown = describe(&graph, &store, id, state, outdated, published.as_ref())?;
    if args.json {
        print_json(&shown)?
    } else {
        print(&text(&shown))?
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(
    graph: &Graph,
    store: &Store,
    id: Id,
    state: &str,
    outdated: bool,
    published: Option<&Published>,
) -> Result<Value> {
    let stage = graph.stage(id);
    let parameters: Value = serde_json::from_str(stage.parameters()).context("parameters are JSON")?;
    let from = |from: &Origin| match from {
        Origin::Output(of, output) => format!("{}/{output}", graph.stage(*of).name),
        Origin::Path(Ok(path)) => path.display().to_string(),
        Origin::Tool(name) => format!("{name} on PATH"),
        Origin::Path(Err((path, variable))) => format!("{path} ({variable} is not set)"),
    };
    let inputs: Vec<Value> =
        graph.edges(id).iter().map(|e| json!({ "slot": e.slot, "from": from(&e.from), "hashed": e.hashed })).collect();
    let mut shown = json!({
        "stage": stage.name,
        "kind": stage.kind,
        "version": stage.version,
        "written_at": graph.pipeline.place(stage),
        "state": state,
        "parameters": parameters,
        "inputs": inputs,
    });
    let Some(published) = published else { return Ok(shown) };
    let output = |a: &caco_engine::store::Artifact| json!({ "name": a.name, "bytes": a.size, "blake3": a.blake3, "sha256": a.sha256, "object": store.object(a.blake3) });
    let metrics = published
        .output(METRICS)
        .map(|a| metric::read(&store.object(a.blake3)))
        .transpose()
        .context("cannot read the metrics")?;
    shown["result"] = json!({
        "of_earlier_parameters": outdated,
        "key": published.key,
        "record": published.record,
        "folder": store.record_folder(published),
        "outputs": published.outputs.iter().map(output).collect::<Vec<_>>(),
        "metrics": metrics.unwrap_or_default(),
        "made": store.record(published)?,
    });
    if stage.is_comparison {
        let trust = Keyring::locate()?.trust_in()?;
        // A comparison of an older caco is unsigned: its figures cannot be traced.
        let figures = super::figures::marked(store, published.key, &trust).unwrap_or_default();
        shown["result"]["figures"] = serde_json::to_value(figures)?;
    }
    Ok(shown)
}

fn text(shown: &Value) -> String {
    let mut text = String::new();
    let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    let mut line = |name: &str, value: String| writeln!(text, "{name:12} {value}").expect("a string takes all text");
    line("stage", format!("{} ({}, version {})", word(&shown["stage"]), word(&shown["kind"]), shown["version"]));
    line("written at", word(&shown["written_at"]));
    line("state", word(&shown["state"]));
    for (i, (name, value)) in shown["parameters"].as_object().into_iter().flatten().enumerate() {
        line(if i == 0 { "parameters" } else { "" }, format!("{name}: {value}"));
    }
    for (i, input) in shown["inputs"].as_array().into_iter().flatten().enumerate() {
        let located = if input["hashed"] == json!(false) { " (located, not hashed)" } else { "" };
        line(
            if i == 0 { "inputs" } else { "" },
            format!("{} ← {}{located}", word(&input["slot"]), word(&input["from"])),
        );
    }
    let Some(result) = shown.get("result") else { return text };
    let earlier =
        if result["of_earlier_parameters"] == json!(true) { " (of earlier parameters or inputs)" } else { "" };
    line("key", format!("{}{earlier}", word(&result["key"])));
    for (i, output) in result["outputs"].as_array().into_iter().flatten().enumerate() {
        let digest = word(&output["blake3"]);
        line(
            if i == 0 { "outputs" } else { "" },
            format!("{}  {} bytes  {}", word(&output["name"]), output["bytes"], &digest[..12]),
        );
    }
    for (i, m) in result["metrics"].as_array().into_iter().flatten().enumerate() {
        let interval = m["interval"].as_array().map_or(String::new(), |i| {
            format!(
                "  95 % interval {:.4} to {:.4}",
                i[0].as_f64().unwrap_or_default(),
                i[1].as_f64().unwrap_or_default()
            )
        });
        line(
            if i == 0 { "metrics" } else { "" },
            format!(
                "{}{}  {:.6}{interval}",
                word(&m["name"]),
                // What a command measured may belong to no split.
                m["split"].as_str().filter(|s| !s.is_empty()).map_or(String::new(), |s| format!(" ({s})")),
                m["value"].as_f64().unwrap_or(f64::NAN)
            ),
        );
    }
    for (i, figure) in result["figures"].as_array().into_iter().flatten().enumerate() {
        let keys = figure["results"].as_array().into_iter().flatten();
        let keys: Vec<String> = keys.map(|key| word(key)[..12].to_string()).collect();
        line(
            if i == 0 { "figures" } else { "" },
            format!(
                "{}/{}/{}  {:.1} %  {}  audit: {}",
                word(&figure["line"]),
                word(&figure["evaluation"]),
                word(&figure["measured"]["name"]),
                100.0 * figure["measured"]["value"].as_f64().unwrap_or(f64::NAN),
                keys.join(" "),
                word(&figure["audit"])
            ),
        );
    }
    if let Some(made) = result.get("made").filter(|m| m.is_object()) {
        line(
            "made",
            format!(
                "{} on {}, {:.1} s, {} threads",
                word(&made["started"]),
                word(&made["host"]),
                made["seconds"].as_f64().unwrap_or_default(),
                made["threads"]
            ),
        );
    }
    line("folder", word(&result["folder"]));
    text
}
