//! `caco history`

use super::{
    StoreArgs,
    display::{count, duration},
    open, print, print_json,
};
use anyhow::{Result, bail};
use caco_engine::{
    history::{self, Attempt, Ended, Ending, Request, Run, Saved},
    key::Key,
    store::Store,
};
use clap::Args;
use std::{collections::HashMap, fmt::Write, process::ExitCode, time::Duration};

#[derive(Args)]
pub struct HistoryArgs {
    /// A pipeline's name, or the start of a run's: all that is known of that run
    #[arg(value_name = "PIPELINE|RUN")]
    of: Option<String>,
    /// No more runs than this, the newest
    #[arg(short, default_value_t = 20, value_name = "N")]
    n: usize,
    /// List them as JSON
    #[arg(long)]
    json: bool,
}

/// A run with the time that its hits saved.
#[derive(serde::Serialize)]
struct Told {
    #[serde(flatten)]
    run: Run,
    outcome: String,
    saved: Saved,
}

pub fn main(args: &HistoryArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let ids = history::runs(&store)?;
    if let Some(id) = args.of.as_deref().map(|of| one(&ids, of)).transpose()?.flatten() {
        let Some(run) = Run::read(&store, id)? else { bail!("the record of run '{id}' cannot be read") };
        let told = tell(run, &store, &mut HashMap::new());
        if args.json {
            print_json(&told)?
        } else {
            print(&details(&told))?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let told = newest(args, &store, &ids)?;
    if args.json {
        print_json(&told)?
    } else {
        print(&table(&told))?
    }
    Ok(ExitCode::SUCCESS)
}

/// The run whose name starts so. None: it is no name of a run.
fn one<'i>(ids: &'i [String], text: &str) -> Result<Option<&'i str>> {
    let found: Vec<&String> = ids.iter().filter(|id| id.starts_with(text)).collect();
    match found.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        [last, .., first] => bail!("{} runs start with '{text}', from {first} to {last}; give more of it", found.len()),
    }
}

fn newest(args: &HistoryArgs, store: &Store, ids: &[String]) -> Result<Vec<Told>> {
    let mut known = HashMap::new();
    let mut told = vec![];
    for id in ids {
        if told.len() == args.n {
            break;
        }
        let Some(run) = Run::read(store, id)? else { continue };
        if args.of.as_ref().is_none_or(|of| *of == run.began.request.pipeline) {
            told.push(tell(run, store, &mut known));
        }
    }
    match &args.of {
        Some(of) if told.is_empty() && !ids.is_empty() => {
            bail!("no run of a pipeline '{of}', and none whose name starts so; `caco history` lists them")
        }
        _ => Ok(told),
    }
}

fn tell(run: Run, store: &Store, known: &mut HashMap<Key, Option<f64>>) -> Told {
    Told { saved: run.saved(store, known), outcome: outcome(&run), run }
}

/// How a run ended, in a few words.
fn outcome(run: &Run) -> String {
    let Some(ended) = &run.ended else {
        return if run.goes_on { "goes on".into() } else { "killed".into() };
    };
    match ended {
        Ended { error: Some(error), .. } => format!("broke off: {error}"),
        Ended { interrupted: Some(0), .. } => "stopped by its time limit".into(),
        Ended { interrupted: Some(signal), .. } => format!("stopped by signal {signal}"),
        Ended { failed: 0, skipped: 0, .. } => "done".into(),
        Ended { failed: 0, skipped, .. } => format!("{skipped} not run"),
        Ended { failed, .. } => format!("{failed} failed"),
    }
}

fn table(runs: &[Told]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["run", "pipeline", "took", "ran", "hits", "time saved", "outcome"]);
    for column in [2, 3, 4, 5] {
        table.column_mut(column).expect("there are seven").set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for told in runs {
        let ended = told.run.ended.as_ref();
        let ran = told.run.attempts.iter().filter(|attempt| attempt.outcome == Ending::Ran).count();
        table.add_row([
            told.run.id.clone(),
            asked(&told.run.began.request),
            took(&told.run).map_or_else(|| "?".into(), duration),
            ran.to_string(),
            ended.map_or_else(|| "?".into(), |ended| ended.hits.to_string()),
            saved(told.saved),
            told.outcome.clone(),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_string()).collect();
    if runs.is_empty() { String::new() } else { lines.join("\n") + "\n" }
}

/// How long a run took, or has taken so far. None: nobody knows when it was killed.
fn took(run: &Run) -> Option<Duration> {
    match &run.ended {
        Some(ended) => Duration::try_from_secs_f64(ended.seconds).ok(),
        None if run.goes_on => humantime::parse_rfc3339(&run.began.started).ok()?.elapsed().ok(),
        None => None,
    }
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

fn details(told: &Told) -> String {
    let Told { run, outcome, .. } = told;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:10} {value}").expect("a string takes all text");
    let began = &run.began;
    line("run", &run.id);
    line("pipeline", &format!("{} ({})", asked(&began.request), began.request.file.display()));
    if !began.request.targets.is_empty() {
        line("stages", &began.request.targets.join(" "));
    }
    line("started", &format!("{} on {}, process {}, caco {}", began.started, began.host, began.pid, began.caco));
    line("outcome", outcome);
    if let Some(took) = took(run) {
        line("took", &duration(took));
    }
    if let Some(ended) = &run.ended {
        line("hits", &format!("{}, which saved {}", ended.hits, saved(told.saved)));
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
        Ending::Failed => format!("failed: {}{again}", attempt.why.as_deref().unwrap_or("?")),
    }
}
