//! `caco why`

use super::{OfPipelineArgs, StoreArgs, open, print, print_json};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id, Origin},
    listing::Content,
    names::Names,
    plan::{Outside, Plan, Step},
    store::Store,
    why::Change,
};
use clap::Args;
use std::{collections::HashSet, fmt::Write, process::ExitCode};

#[derive(Args)]
pub struct WhyArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &WhyArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let graph = open::graph_of(&args.pipeline, &store)?;
    let id = open::stage(&graph, &args.stage)?;
    let plan = Plan::new(&graph, &graph.with_sources(&[id]), &store, &HashSet::new())?;
    let names = Names::load(&store, &graph.pipeline.name);
    let (_, step) = plan.steps.iter().find(|(other, _)| *other == id).expect("the stage was planned");
    let why = match step {
        Step::Run(_) => super::plan::reasons(&graph, &store, &names, &plan, id, false)?,
        _ => vec![],
    };
    if args.json {
        let state = match step {
            Step::Hit(_) => "hit",
            Step::Run(_) => "run",
            Step::MayRun => "may_run",
            Step::Blocked(_) | Step::Behind(_) => "missing",
        };
        print_json(&serde_json::json!({ "stage": args.stage, "state": state, "why": why }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = graph.pipeline.place(graph.stage(id));
    let mut text = String::new();
    match step {
        Step::Hit(published) => writeln!(
            text,
            "'{}' ({place}) will not run: its result is there, key {}",
            args.stage,
            published.key.0.short()
        )?,
        Step::Run(_) => {
            writeln!(text, "'{}' ({place}) will run:", args.stage)?;
            for change in &why {
                writeln!(text, "  {change}{}", written_at(&graph, id, change))?;
            }
        }
        Step::MayRun => {
            writeln!(
                text,
                "'{}' ({place}) may run, when these have run and yield other bytes than before:",
                args.stage
            )?;
            for (of, _) in plan.steps.iter().filter(|(of, step)| *of != id && matches!(step, Step::Run(_))) {
                let reasons = super::plan::reasons(&graph, &store, &names, &plan, *of, false)?;
                let first = reasons
                    .first()
                    .map_or(String::new(), |change| format!("{change}{}", written_at(&graph, *of, change)));
                writeln!(text, "  '{}': {first}", graph.stage(*of).name)?;
            }
        }
        Step::Blocked(missing) => missing
            .iter()
            .try_for_each(|m| writeln!(text, "'{}' cannot run: input {}: {}", args.stage, m.slot, m.why))?,
        Step::Behind(of) => writeln!(text, "'{}' cannot run: '{}' cannot", args.stage, graph.stage(*of).name)?,
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Where in the pipeline file a changed parameter stands.
fn written_at(graph: &Graph, id: Id, change: &Change) -> String {
    let Change::Parameter { field, .. } = change else { return String::new() };
    graph.pipeline.field_place(graph.stage(id), field).map_or(String::new(), |place| format!("  ({place})"))
}

/// Adds, to inputs that are folders, which files of them differ.
pub fn name_files(graph: &Graph, store: &Store, outside: &Outside, id: Id, changes: &mut [Change]) -> Result<()> {
    for change in changes {
        let Change::Input { slot, old: Some(old), new: Some(_), files } = change else { continue };
        let edge = graph.edges(id).iter().find(|edge| *edge.slot == **slot);
        let Some(Origin::Path(Ok(path))) = edge.map(|edge| &edge.from) else { continue };
        let (Some(Content::Folder(now)), Some(before)) = (outside.content(path), store.kept_listing(*old)?) else {
            continue;
        };
        *files = before.changes(now).into_iter().map(|(path, what)| (path, what.to_string())).collect();
    }
    Ok(())
}
