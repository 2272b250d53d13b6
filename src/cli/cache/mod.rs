//! `caco cache`: one file a subcommand.

mod copy;
mod du;
mod gc;
mod ls;
mod pin;
mod verify;

use super::Project;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco cache du\n  caco cache gc --older-than 30days     # what could go\n  caco cache gc --older-than 30days --yes\n  caco cache copy --to /mnt/store tiny"
)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Read every byte of the store; quarantine objects that do not match
    Verify(verify::VerifyArgs),
    /// List the results that can go; with --yes remove them
    Gc(gc::GcArgs),
    /// Print how much space the store takes, by stage kind
    Du(du::DuArgs),
    /// List the results
    Ls(ls::LsArgs),
    /// Protect a result from collection
    Pin(pin::PinArgs),
    /// Allow a pinned result to be collected
    Unpin(pin::UnpinArgs),
    /// Copy results to or from another store, verifying every digest
    Copy(copy::CopyArgs),
}

pub fn main(args: &CacheArgs, project: &Project) -> Result<ExitCode> {
    match &args.command {
        CacheCommand::Verify(args) => verify::main(args, project),
        CacheCommand::Gc(args) => gc::main(args, project),
        CacheCommand::Du(args) => du::main(args, project),
        CacheCommand::Ls(args) => ls::main(args, project),
        CacheCommand::Pin(args) => pin::pin(args, project),
        CacheCommand::Unpin(args) => pin::unpin(args, project),
        CacheCommand::Copy(args) => copy::main(args, project),
    }
}
