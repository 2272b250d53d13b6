//! `caco why`

use super::{OfPipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_inspect::{
    state::State,
    why::{self, Reason, Why},
};
use clap::Args;
use std::{fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco why pretrain/short")]
pub struct WhyArgs {
    /// The stage
    stage: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &WhyArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let why = why::why(&graph, &store, &args.stage)?;
    if args.json {
        print_json(&why)?;
    } else {
        print(&text(&why)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(why: &Why) -> Result<String> {
    let mut text = String::new();
    let (stage, place) = (&why.stage, &why.written_at);
    match why.state {
        State::Hit => {
            let key = why.key.map_or_else(String::new, |key| key.0.short());
            writeln!(text, "'{stage}' ({place}) will not run: its result is there, key {key}")?;
        }
        State::Run => {
            writeln!(text, "'{stage}' ({place}) will run:")?;
            why.why.iter().try_for_each(|reason| writeln!(text, "  {}", line(reason)))?;
        }
        State::MayRun => {
            writeln!(text, "'{stage}' ({place}) may run, when these have run and yield other bytes than before:")?;
            for upstream in &why.upstream {
                let first = upstream.why.first().map_or(String::new(), line);
                writeln!(text, "  '{}': {first}", upstream.stage)?;
            }
        }
        State::Missing => {
            for missing in &why.missing {
                writeln!(text, "'{stage}' cannot run: input {}: {}", missing.slot, missing.why)?;
            }
            why.behind.iter().try_for_each(|of| writeln!(text, "'{stage}' cannot run because '{of}' cannot"))?;
        }
    }
    Ok(text)
}

fn line(Reason { change, written_at }: &Reason) -> String {
    let place = written_at.as_ref().map_or(String::new(), |place| format!("  ({place})"));
    format!("{change}{place}")
}
