//! `caco diff`

use super::{OfPipelineArgs, StoreArgs, open, print, print_json};
use anyhow::{Context, Result};
use caco_engine::{
    key::Key,
    store::{Published, Store},
    why::{Change, changes},
};
use clap::Args;
use std::{collections::BTreeSet, process::ExitCode};

#[derive(Args)]
pub struct DiffArgs {
    /// A key, the start of one, or a stage of the pipeline
    old: String,
    /// Another
    new: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DiffArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let old = open::result(&args.old, &args.pipeline, &store)?;
    let new = open::result(&args.new, &args.pipeline, &store)?;
    let mut asked = changes(&preimage(&store, old)?, &preimage(&store, new)?);
    name_files(&store, &mut asked)?;
    let outputs = differing_outputs(&result(&store, old)?, &result(&store, new)?);
    if args.json {
        print_json(&serde_json::json!({ "old": old, "new": new, "asked": asked, "outputs": outputs }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{} → {}\n", old.0.short(), new.0.short());
    if asked.is_empty() {
        text += "asked for the same\n";
    }
    asked.iter().for_each(|change| text += &format!("{change}\n"));
    for (name, what) in &outputs {
        text += &format!("output {name}: {what}\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn preimage(store: &Store, key: Key) -> Result<caco_engine::key::Preimage> {
    store.preimage(key)?.with_context(|| format!("key {key} has no result in {}", store.root().display()))
}

fn result(store: &Store, key: Key) -> Result<Published> {
    store.lookup(key)?.with_context(|| format!("key {key} has no result in {}", store.root().display()))
}

/// Adds, to inputs that are folders whose listings are known, which files of them differ.
fn name_files(store: &Store, asked: &mut [Change]) -> Result<()> {
    for change in asked {
        let Change::Input { old: Some(old), new: Some(new), files, .. } = change else { continue };
        if let (Some(old), Some(new)) = (store.kept_listing(*old)?, store.kept_listing(*new)?) {
            *files = old.changes(&new).into_iter().map(|(path, what)| (path, what.to_string())).collect();
        }
    }
    Ok(())
}

fn differing_outputs(old: &Published, new: &Published) -> Vec<(String, String)> {
    let names: BTreeSet<&str> = old.outputs.iter().chain(new.outputs.iter()).map(|o| &*o.name).collect();
    let told = |name: &str| match (old.output(name), new.output(name)) {
        (Some(a), Some(b)) if a.blake3 == b.blake3 => "the same bytes".into(),
        (Some(a), Some(b)) => {
            format!("{} ({} bytes) → {} ({} bytes)", a.blake3.short(), a.size, b.blake3.short(), b.size)
        }
        (None, _) => "only in the new one".into(),
        (_, None) => "only in the old one".into(),
    };
    names.into_iter().map(|name| (name.to_string(), told(name))).collect()
}
