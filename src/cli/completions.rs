//! `caco completions`

use anyhow::Result;
use clap::{Args, CommandFactory};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "Examples:\n  caco completions bash > ~/.local/share/bash-completion/completions/caco")]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script: `caco completions bash > ~/.local/share/bash-completion/completions/caco`.
pub fn main(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut super::Cli::command(), "caco", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
