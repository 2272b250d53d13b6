//! `caco cache`: one file a subcommand.

mod copy;
mod du;
mod gc;
mod ls;
mod pin;
mod verify;

use super::StoreArgs;
use anyhow::Result;
use caco_engine::{
    key::Key,
    store::{Published, Store},
};
use clap::{Args, Subcommand};
use serde_json::Value;
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

/// A result and what is known of how it was made.
struct Row {
    published: Published,
    made: Value,
    records: usize,
    pinned: bool,
}

impl Row {
    fn text(&self, field: &str) -> &str {
        self.made[field].as_str().unwrap_or("?")
    }

    /// Bytes of its outputs; what it shares with others is counted here too.
    fn bytes(&self) -> u64 {
        self.published.outputs.iter().map(|o| o.size).sum()
    }
}

/// Every result that can be read, the newest first.
fn rows(store: &Store) -> Result<Vec<Row>> {
    let mut rows = vec![];
    for key in store.keys()? {
        rows.extend(row(store, key)?);
    }
    rows.sort_by(|a, b| b.text("started").cmp(a.text("started")).then(a.published.key.cmp(&b.published.key)));
    Ok(rows)
}

fn row(store: &Store, key: Key) -> Result<Option<Row>> {
    let Some(published) = store.lookup(key)? else { return Ok(None) };
    let made = store.record(&published).ok().flatten().unwrap_or_default();
    Ok(Some(Row { records: store.records(key)?.len(), pinned: store.is_pinned(key), made, published }))
}
