//! `caco history`

use super::{
    Project,
    display::{count, duration, local},
    open, print, print_json,
};
use anyhow::{Result, bail};
use caco_engine::{
    history::{self, Attempt, Ending, Request, Saved},
    printable::printable,
};
use caco_inspect::history::{Past, newest, run};
use clap::Args;
use std::{fmt::Write, process::ExitCode, time::Duration};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco history\n  caco history tiny -n 5\n  caco history 20261130T0412          # all about one run"
)]
pub struct HistoryArgs {
    /// A pipeline, or the start of a run's name for the details of that run
    #[arg(value_name = "PIPELINE|RUN")]
    of: Option<String>,
    /// Print at most this many runs, the newest
    #[arg(short, default_value_t = 20, value_name = "N")]
    n: usize,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &HistoryArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let of = args.of.as_deref();
    if let Some(past) = of.map(|start| run(&store, start)).transpose()?.flatten() {
        if args.json {
            print_json(&past)?
        } else {
            print(&details(&past))?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runs = newest(&store, of, args.n)?;
    if let Some(of) = of.filter(|_| runs.is_empty() && args.n > 0)
        && !history::runs(&store)?.is_empty()
    {
        bail!("no run of a pipeline '{of}', and no run whose name starts with it; `caco history` lists them");
    }
    if args.json {
        print_json(&runs)?
    } else {
        print(&table(&runs))?
    }
    Ok(ExitCode::SUCCESS)
}

fn table(runs: &[Past]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["run", "started", "pipeline", "took", "ran", "hits", "time saved", "outcome"]);
    for column in [3, 4, 5, 6] {
        table.column_mut(column).expect("there are eight").set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for past in runs {
        let ended = past.run.ended.as_ref();
        let ran = past.run.attempts.iter().filter(|attempt| attempt.outcome == Ending::Ran).count();
        table.add_row([
            past.run.id.clone(),
            local(&past.run.began.started),
            asked(&past.run.began.request),
            past.took().map_or_else(|| "?".into(), duration),
            ran.to_string(),
            ended.map_or_else(|| "?".into(), |ended| ended.hits.to_string()),
            saved(past.saved),
            past.outcome.clone(),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_string()).collect();
    if runs.is_empty() { String::new() } else { lines.join("\n") + "\n" }
}

fn asked(request: &Request) -> String {
    let profile = request.profile.as_ref().map_or(String::new(), |profile| format!(" --profile {profile}"));
    let set: String = request.set.iter().map(|set| format!(" --set {set}")).collect();
    format!("{}{profile}{set}", request.pipeline)
}

fn saved(saved: Saved) -> String {
    let time = duration(Duration::from_secs_f64(saved.seconds));
    match saved {
        Saved { at_least: true, .. } => format!("at least {time}"),
        Saved { about: true, .. } => format!("about {time}"),
        _ => time,
    }
}

fn details(past: &Past) -> String {
    let Past { run, outcome, .. } = past;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:10} {value}").expect("a string takes all text");
    let began = &run.began;
    line("run", &run.id);
    line("pipeline", &format!("{} ({})", asked(&began.request), began.request.file.display()));
    if !began.request.targets.is_empty() {
        line("stages", &began.request.targets.join(" "));
    }
    line(
        "started",
        &format!("{} on {}, process {}, caco {}", local(&began.started), began.host, began.pid, began.caco),
    );
    line("outcome", outcome);
    if let Some(took) = past.took() {
        line("took", &duration(took));
    }
    if let Some(ended) = &run.ended {
        line("hits", &format!("{}, which saved {}", ended.hits, saved(past.saved)));
        let rest = [(ended.stopped, "stopped"), (ended.skipped, "not run")];
        let rest: Vec<String> = rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if !rest.is_empty() {
            line("left", &rest.join(", "));
        }
    }
    writeln!(text, "{}", count(run.attempts.len() as u64, "attempt")).expect("a string takes all text");
    let width = run.attempts.iter().map(|attempt| attempt.stage.chars().count()).max().unwrap_or(0).min(60);
    for attempt in &run.attempts {
        let time = duration(Duration::from_secs_f64(attempt.seconds));
        writeln!(text, "  {:width$}  {}  {time:>9}  {}", attempt.stage, attempt.key.0.short(), ending(attempt))
            .expect("a string takes all text");
    }
    text
}

fn ending(attempt: &Attempt) -> String {
    let again = if attempt.again { "; tried again" } else { "" };
    match attempt.outcome {
        Ending::Ran => "ran".into(),
        Ending::Stopped => "stopped at a checkpoint".into(),
        Ending::Failed => format!("failed: {}{again}", printable(attempt.why.as_deref().unwrap_or("?"))),
    }
}
