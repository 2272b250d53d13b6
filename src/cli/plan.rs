//! `caco plan`

use super::{PipelineArgs, StoreArgs, open, print, print_json};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id},
    names::Names,
    plan::{Ask, Plan, Step, ask},
    store::Store,
    why::{Change, changes},
};
use clap::Args;
use std::{collections::HashSet, fmt::Write, process::ExitCode};

#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages or patterns (`linear/*`); left out: the pipeline's targets
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &PlanArgs, store: &StoreArgs) -> Result<ExitCode> {
    let (graph, store) = open::both(&args.pipeline, store)?;
    let ids = graph.with_sources(&open::select(&graph, &args.stages)?);
    let (plan, names) =
        rayon::join(|| Plan::new(&graph, &ids, &store, &HashSet::new()), || Names::load(&store, &graph.pipeline.name));
    let plan = plan?;
    let code = tell(&graph, &store, &names, &plan, &HashSet::new(), args.json);
    store.save_accelerators();
    // The process ends here; taking a hundred thousand stages apart first is work for nothing.
    std::mem::forget((graph, plan));
    code
}

/// Why a stage runs: what differs from its last result.
pub fn reasons(graph: &Graph, store: &Store, names: &Names, plan: &Plan, id: Id, forced: bool) -> Result<Vec<Change>> {
    let published = |of: Id| match plan.step(of) {
        Some(Step::Hit(published)) => Some(published),
        _ => None,
    };
    let Ask::Known(key, text) = ask(graph, id, &plan.outside, published) else { return Ok(vec![]) };
    if forced {
        return Ok(vec![Change::Forced]);
    }
    let Some(last) = names.get(&graph.stage(id).name) else { return Ok(vec![Change::New]) };
    if last == key {
        return Ok(vec![Change::Gone]);
    }
    let Some(old) = store.preimage(last)? else { return Ok(vec![Change::New]) };
    let mut found = changes(&old, &serde_json::from_str(&text)?);
    super::why::name_files(graph, store, &plan.outside, id, &mut found)?;
    Ok(found)
}

/// Prints a plan.
pub fn tell(
    graph: &Graph,
    store: &Store,
    names: &Names,
    plan: &Plan,
    forced: &HashSet<Id>,
    json: bool,
) -> Result<ExitCode> {
    let mut lines = vec![];
    for (id, step) in &plan.steps {
        let why = match step {
            Step::Run(_) => reasons(graph, store, names, plan, *id, forced.contains(id))?,
            _ => vec![],
        };
        lines.push((*id, step, why));
    }
    if json {
        print_json(&as_json(graph, &lines))?;
    } else {
        print(&as_text(graph, plan, &lines))?;
    }
    Ok(ExitCode::SUCCESS)
}

type Line<'p> = (Id, &'p Step, Vec<Change>);

fn as_text(graph: &Graph, plan: &Plan, lines: &[Line]) -> String {
    let width = lines.iter().map(|(id, ..)| graph.stage(*id).name.chars().count()).max().unwrap_or(0).min(48);
    let mut text = String::new();
    for (id, step, why) in lines {
        let name = &graph.stage(*id).name;
        let (state, reasons): (&str, Vec<String>) = match step {
            Step::Hit(_) => continue,
            Step::Run(_) => ("run", why.iter().map(ToString::to_string).collect()),
            Step::MayRun => ("may run", vec!["a stage it reads from runs first".into()]),
            Step::Blocked(missing) => {
                ("missing", missing.iter().map(|m| format!("input {}: {}", m.slot, m.why)).collect())
            }
            Step::Behind(of) => ("missing", vec![format!("'{}' cannot run", graph.stage(*of).name)]),
        };
        let first = reasons.first().map_or("", String::as_str);
        writeln!(text, "{state:8} {name:width$}  {first}").expect("a string takes all text");
        for reason in reasons.iter().skip(1) {
            writeln!(text, "{:8} {:width$}  {reason}", "", "").expect("a string takes all text");
        }
    }
    let count = |which: fn(&Step) -> bool| plan.count(which);
    let (run, may) = (count(|s| matches!(s, Step::Run(_))), count(|s| matches!(s, Step::MayRun)));
    let (hit, missing) =
        (count(|s| matches!(s, Step::Hit(_))), count(|s| matches!(s, Step::Blocked(_) | Step::Behind(_))));
    writeln!(text, "{run} to run, {may} may run, {hit} there, {missing} missing inputs")
        .expect("a string takes all text");
    text
}

fn as_json(graph: &Graph, lines: &[Line]) -> serde_json::Value {
    let line = |(id, step, why): &Line| {
        let name = &graph.stage(*id).name;
        match step {
            Step::Hit(published) => serde_json::json!({ "stage": name, "state": "hit", "key": published.key }),
            Step::Run(key) => serde_json::json!({ "stage": name, "state": "run", "key": key, "why": why }),
            Step::MayRun => serde_json::json!({ "stage": name, "state": "may_run" }),
            Step::Blocked(missing) => serde_json::json!({ "stage": name, "state": "missing", "missing": missing }),
            Step::Behind(of) => {
                serde_json::json!({ "stage": name, "state": "missing", "behind": graph.stage(*of).name })
            }
        }
    };
    lines.iter().map(line).collect()
}
