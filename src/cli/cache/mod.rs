//! `caco cache`: one file a subcommand.

mod copy;
mod du;
mod gc;
mod ls;
mod pin;
mod verify;

use super::StoreArgs;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Read every byte in the store; set aside what is not what its name says
    Verify(verify::VerifyArgs),
    /// Tell which results can go, by age, size or reachability; with --yes remove them
    Gc(gc::GcArgs),
    /// How much the store takes, by stage kind
    Du(du::DuArgs),
    /// List the results
    Ls(ls::LsArgs),
    /// Keep a result from being collected
    Pin(pin::PinArgs),
    /// Let go of a pinned result
    Unpin(pin::UnpinArgs),
    /// Copy results to another store, or from one, comparing every digest
    Copy(copy::CopyArgs),
}

pub fn main(args: &CacheArgs, store: &StoreArgs) -> Result<ExitCode> {
    match &args.command {
        CacheCommand::Verify(args) => verify::main(args, store),
        CacheCommand::Gc(args) => gc::main(args, store),
        CacheCommand::Du(args) => du::main(args, store),
        CacheCommand::Ls(args) => ls::main(args, store),
        CacheCommand::Pin(args) => pin::pin(args, store),
        CacheCommand::Unpin(args) => pin::unpin(args, store),
        CacheCommand::Copy(args) => copy::main(args, store),
    }
}
