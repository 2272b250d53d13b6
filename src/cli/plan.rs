//! `caco plan`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id},
    names::Names,
    plan::Plan,
    store::Store,
};
use caco_inspect::{
    name, plan,
    state::{Planned, State},
};
use clap::Args;
use std::{collections::HashSet, fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco plan tiny\n  caco plan tiny 'linear/*' --json")]
pub struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages or patterns (`linear/*`) [default: the pipeline's targets]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &PlanArgs, project: &Project) -> Result<ExitCode> {
    let (graph, store) = open::both(&args.pipeline, project)?;
    let ids = graph.with_sources(&name::select(&graph, &args.stages)?);
    let (plan, names) =
        rayon::join(|| Plan::new(&graph, &ids, &store, &HashSet::new()), || Names::load(&store, &graph.pipeline.name));
    let plan = plan?;
    let code = show(&graph, &store, &names, &plan, &HashSet::new(), args.json);
    store.save_accelerators();
    // The process ends here; freeing a hundred thousand stages first would only take time.
    std::mem::forget((graph, plan));
    code
}

/// Prints a plan.
pub fn show(
    graph: &Graph,
    store: &Store,
    names: &Names,
    plan: &Plan,
    forced: &HashSet<Id>,
    json: bool,
) -> Result<ExitCode> {
    let stages = plan::plan(graph, store, names, plan, forced)?;
    if json {
        print_json(&stages)?;
    } else {
        print(&text(&stages))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(stages: &[Planned]) -> String {
    let width = stages.iter().map(|planned| planned.stage.chars().count()).max().unwrap_or(0).min(48);
    let mut text = String::new();
    for planned in stages {
        let (state, reasons): (&str, Vec<String>) = match planned.state {
            State::Hit => continue,
            State::Run => ("run", planned.why.iter().flatten().map(ToString::to_string).collect()),
            State::MayRun => ("may run", vec!["a stage it reads from runs first".into()]),
            State::Missing => {
                let missing = planned.missing.iter().map(|m| format!("input {}: {}", m.slot, m.why));
                ("missing", missing.chain(planned.behind.iter().map(|of| format!("'{of}' cannot run"))).collect())
            }
        };
        let first = reasons.first().map_or("", String::as_str);
        writeln!(text, "{} {:width$}  {first}", coloured(planned.state, state), planned.stage)
            .expect("a string takes all text");
        for reason in reasons.iter().skip(1) {
            writeln!(text, "{:8} {:width$}  {reason}", "", "").expect("a string takes all text");
        }
    }
    let count = |state| stages.iter().filter(|planned| planned.state == state).count();
    let [run, may, hit, missing] = [State::Run, State::MayRun, State::Hit, State::Missing].map(count);
    writeln!(text, "{run} to run, {may} may run, {hit} cached, {missing} missing inputs")
        .expect("a string takes all text");
    text
}

/// A state's word in a column, in the colour of the state where the terminal has some.
fn coloured(state: State, word: &str) -> console::StyledObject<String> {
    let word = console::style(format!("{word:8}"));
    match state {
        State::Hit | State::MayRun => word,
        State::Run => word.yellow(),
        State::Missing => word.red(),
    }
}
