//! `caco cache du`

use super::super::{StoreArgs, display::bytes, open, print, print_json};
use anyhow::Result;
use clap::Args;
use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

#[derive(Args)]
pub struct DuArgs {
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DuArgs, store: &StoreArgs) -> Result<ExitCode> {
    let store = open::store(store)?;
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in super::rows(&store)? {
        let (results, size) = kinds.entry(row.text("kind").to_string()).or_default();
        *results += 1;
        *size += row.bytes();
    }
    let folders = ["objects", "results", "work", "quarantine", "listings", "hosts"];
    let folders: Vec<(&str, u64)> = folders.iter().map(|name| (*name, size_of(&store.root().join(name)))).collect();
    if args.json {
        let kinds: BTreeMap<_, _> =
            kinds.iter().map(|(kind, (n, size))| (kind, serde_json::json!({ "results": n, "bytes": size }))).collect();
        let folders: BTreeMap<_, _> = folders.into_iter().collect();
        print_json(&serde_json::json!({ "kinds": kinds, "folders": folders }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (kind, (results, size)) in &kinds {
        text += &format!("{kind:16} {results:7} {:>10}\n", bytes(*size));
    }
    text += &format!("on disk, equal bytes once ({}):\n", store.root().display());
    for (name, size) in &folders {
        text += &format!("{name:16} {:>26}\n", bytes(*size));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_of(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
