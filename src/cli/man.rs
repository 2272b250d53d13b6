//! `caco man`

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::{fs, path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The folder for the pages: `caco man ~/.local/share/man/man1`
    dir: PathBuf,
}

/// Writes caco.1, caco-run.1 and so on.
pub fn main(args: &ManArgs) -> Result<ExitCode> {
    let to = || format!("cannot write manual pages to {}", args.dir.display());
    fs::create_dir_all(&args.dir).with_context(to)?;
    clap_mangen::generate_to(super::Cli::command(), &args.dir).with_context(to)?;
    Ok(ExitCode::SUCCESS)
}
