//! `caco cache du`

use super::super::{Project, display::bytes, open, print, print_json};
use anyhow::Result;
use caco_inspect::store::usage;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct DuArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DuArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let usage = usage(&store)?;
    if args.json {
        print_json(&usage)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (kind, of) in &usage.kinds {
        text += &format!("{kind:16} {:7} {:>10}\n", of.results, bytes(of.bytes));
    }
    text += &format!("on disk, equal bytes once ({}):\n", store.root().display());
    for (name, size) in &usage.folders {
        text += &format!("{name:16} {:>26}\n", bytes(*size));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
