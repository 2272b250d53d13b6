//! `caco cache gc`

use super::super::{
    Project,
    display::{bytes, count},
    open, print, print_json,
};
use anyhow::{Context, Result, bail};
use caco_engine::{
    graph::Graph,
    key::Key,
    names::Names,
    plan::Plan,
    store::{Limits, Store},
};
use caco_inspect::store::Row;
use clap::Args;
use std::{collections::HashSet, path::PathBuf, process::ExitCode, time::Duration};

#[derive(Args)]
pub struct GcArgs {
    /// Results and checkpoints older than this: 30days, 12h
    #[arg(long, value_name = "AGE")]
    older_than: Option<humantime::Duration>,
    /// The oldest results, until the rest takes at most this: 50GB, 800MB
    #[arg(long, value_name = "SIZE")]
    keep_size: Option<String>,
    /// Results that none of these pipelines leads to may go, in none of its profiles; what was last made for any of
    /// them by name stays too
    #[arg(long, value_name = "PIPELINE")]
    keep: Vec<PathBuf>,
    /// Remove them; without this they are only listed
    #[arg(long)]
    yes: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &GcArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let limits = Limits {
        older_than: args.older_than.map(Duration::from),
        keep_bytes: args.keep_size.as_deref().map(size).transpose()?,
        keep_only: if args.keep.is_empty() { None } else { Some(reachable(&args.keep, project, &store)?) },
    };
    let collected = store.collect(&limits, !args.yes)?;
    if args.yes {
        store.save_accelerators();
    }
    if args.json {
        print_json(&collected)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for key in collected.results.iter().filter(|_| !args.yes) {
        let row = store.lookup(*key)?.map(|published| Row::of(&store, &published)).transpose()?;
        let line = row
            .map_or(String::new(), |r| format!("{}  {} of {}", r.text("started"), r.text("stage"), r.text("pipeline")));
        text += &format!("{}  {line}\n", key.0.short());
    }
    let verb = if args.yes { "removed" } else { "can go" };
    text += &format!(
        "{} and {} {verb}, {}; {} stay",
        count(collected.results.len() as u64, "result"),
        count(collected.objects, "object"),
        bytes(collected.bytes),
        count(collected.kept, "result")
    );
    if collected.unfinished > 0 {
        text += &format!("; {} of unfinished stages {verb}", count(collected.unfinished, "folder"));
    }
    if collected.held > 0 {
        text += &format!(", {} of them only because they are pinned or in use", collected.held);
    }
    text += if args.yes || (collected.results.is_empty() && collected.objects == 0 && collected.unfinished == 0) {
        "\n"
    } else {
        "\nnothing was removed; add --yes to remove them\n"
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes in words: `50GB`, `1.5 GiB`, `1000`.
fn size(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => f64::from(1u32 << 20),
        "gib" => f64::from(1u32 << 30),
        "tib" => f64::from(1u32 << 30) * 1024.0,
        _ => bail!("--keep-size {text}: '{unit}' is no unit; write 50GB, 800MB or 20GiB"),
    };
    let number: f64 = number.parse().with_context(|| format!("--keep-size {text}: write 50GB, 800MB or 20GiB"))?;
    Ok((number * factor) as u64)
}

/// The results that these pipelines lead to as they stand, with each of their profiles, and those last made for them.
fn reachable(pipelines: &[PathBuf], project: &Project, store: &Store) -> Result<HashSet<Key>> {
    let mut keys = HashSet::new();
    for path in pipelines {
        let plain = open::graph_with(path, None, project)?;
        let profiles = plain.pipeline.profiles.clone();
        keys.extend(Names::load(store, &plain.pipeline.name).keys());
        for profile in profiles {
            add_hits(&open::graph_with(path, Some(profile), project)?, store, &mut keys)?;
        }
        add_hits(&plain, store, &mut keys)?;
    }
    Ok(keys)
}

fn add_hits(graph: &Graph, store: &Store, keys: &mut HashSet<Key>) -> Result<()> {
    let plan = Plan::new(graph, graph.order(), store, &HashSet::new())?;
    keys.extend(plan.hits().map(|(_, published)| published.key));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("50GB", 50_000_000_000), ("1.5 KiB", 1536), ("12", 12), ("2mb", 2_000_000)] {
            assert_eq!(super::size(text).unwrap(), bytes);
        }
        assert!(super::size("5 apples").unwrap_err().to_string().contains("apples"));
    }
}
