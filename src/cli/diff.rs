//! `caco diff`

use super::{OfPipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_inspect::diff::{self, Diff, OutputDiff};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "Examples:\n  caco diff pretrain/short pretrain/long\n  caco diff 3f9a1c 77b0e2")]
pub struct DiffArgs {
    /// A key, the start of one, or a stage of the pipeline
    old: String,
    /// Another one
    new: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DiffArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let old = open::result(&args.old, &args.pipeline, project, &store)?;
    let new = open::result(&args.new, &args.pipeline, project, &store)?;
    let diff = diff::diff(&store, old, new)?;
    if args.json {
        print_json(&diff)?;
    } else {
        print(&text(&diff))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(diff: &Diff) -> String {
    let mut text = format!("{} → {}\n", diff.old.0.short(), diff.new.0.short());
    if diff.asked.is_empty() {
        text += "asked for the same\n";
    }
    diff.asked.iter().for_each(|change| text += &format!("{change}\n"));
    for output in &diff.outputs {
        text += &format!("output {}: {}\n", output.name, bytes(output));
    }
    text
}

fn bytes(OutputDiff { same, old, new, .. }: &OutputDiff) -> String {
    match (old, new) {
        (Some(_), Some(_)) if *same => "the same bytes".into(),
        (Some(a), Some(b)) => {
            format!("{} ({} bytes) → {} ({} bytes)", a.blake3.short(), a.bytes, b.blake3.short(), b.bytes)
        }
        (None, _) => "only in the new one".into(),
        (_, None) => "only in the old one".into(),
    }
}
