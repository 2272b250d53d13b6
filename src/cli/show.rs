//! `caco show`

use super::{OfPipelineArgs, Project, display::local, open, print, print_json};
use crate::registry::REGISTRY;
use anyhow::Result;
use caco_inspect::{
    comparison::Marked,
    stage::{self, Stage, StageResult},
    state::State,
};
use caco_measure::{metric::Metric, number};
use clap::Args;
use serde_json::Value;
use std::{fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco show linear/short\n  caco show linear/short --json -p tiny")]
pub struct ShowArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &ShowArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let stage = stage::stage(&graph, &store, &args.stage, &REGISTRY)?;
    open::note(&stage.notes);
    if args.json {
        print_json(&stage)?;
    } else {
        print(&text(&stage))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked for most comes first: the state and the metrics.
fn text(stage: &Stage) -> String {
    let mut sheet = Sheet::default();
    let state = match stage.state {
        State::Hit => "done",
        State::Run | State::MayRun => "to run",
        State::Missing => "inputs missing",
    };
    sheet.line("stage", &format!("{} ({}, version {})", stage.stage, stage.kind, stage.version));
    sheet.line("state", state);
    if let Some(result) = &stage.result {
        describe(&mut sheet, result);
    }
    if let Some(expectation) = &stage.expectation {
        let text = super::expectations::text(expectation);
        let verdict = text.strip_prefix(&format!("{}: ", stage.stage)).unwrap_or(&text);
        sheet.list("expect", verdict.lines().map(String::from));
    } else if let Some(table) = &stage.table {
        sheet.line("expect", &format!("not given; for this table: expect: \"blake3:{table}\""));
    }
    let located = |hashed: bool| if hashed { "" } else { " (located, not hashed)" };
    sheet.list("inputs", stage.inputs.iter().map(|i| format!("{} ← {}{}", i.slot, i.from, located(i.hashed))));
    let parameters = stage.parameters.as_object().into_iter().flatten();
    sheet.list("parameters", parameters.map(|(name, value)| format!("{name}: {value}")));
    sheet.line("written at", &stage.written_at);
    sheet.0
}

fn describe(sheet: &mut Sheet, result: &StageResult) {
    sheet.list("metrics", result.metrics.iter().map(metric));
    sheet.list("figures", result.figures.iter().map(figure));
    if let Some(made) = result.made.as_ref().filter(|made| made.is_object()) {
        let text = |field: &str| made[field].as_str().unwrap_or("?").to_string();
        let (seconds, threads) = (made["seconds"].as_f64().unwrap_or_default(), &made["threads"]);
        sheet.line(
            "made",
            &format!("{} on {}, {seconds:.1} s, {threads} threads", local(&text("started")), text("host")),
        );
    }
    let environment = result.made.as_ref().and_then(|made| made["conditions"]["environment"].as_object());
    let variable = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
    sheet.list("environment", environment.into_iter().flatten().map(variable));
    let outputs = result.outputs.iter();
    sheet.list("outputs", outputs.map(|o| format!("{}  {} bytes  {}", o.name, o.bytes, o.blake3.short())));
    let earlier = if result.outdated { " (of earlier parameters, inputs or code)" } else { "" };
    sheet.line("key", &format!("{}{earlier}", result.key));
    sheet.line("folder", &result.folder.display().to_string());
}

fn metric(metric: &Metric) -> String {
    let interval =
        metric.interval.map_or(String::new(), |(low, high)| format!("  95 % interval {low:.4} to {high:.4}"));
    // A command need not say which split it measured on.
    let split = if metric.split.is_empty() { String::new() } else { format!(" ({})", metric.split) };
    format!("{}{split}  {}{interval}", metric.name, number::decimals(metric.value, 6))
}

fn figure(Marked { figure, audit }: &Marked) -> String {
    let keys: Vec<String> = figure.results.iter().map(|key| key.0.short()).collect();
    format!("{}  {} %  {}  audit: {}", figure.name(), figure.per_cent(), keys.join(" "), audit.word())
}

/// Lines of a name and a value.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn line(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name:12} {value}").expect("a string takes all text");
    }

    /// Several values, the name before the first.
    fn list(&mut self, name: &str, values: impl Iterator<Item = String>) {
        values.enumerate().for_each(|(i, value)| self.line(if i == 0 { name } else { "" }, &value));
    }
}
