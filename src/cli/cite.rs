//! `caco cite`

use super::{FAILED, OfPipelineArgs, Project, open, print_json, print_marked, run::signer};
use crate::registry::REGISTRY;
use anyhow::{Context, Result};
use caco_engine::{key::Key, stat, store::Store};
use caco_inspect::metrics::{self, Found};
use caco_measure::number;
use caco_provenance::{
    audit::{Auditor, Report, State},
    citation::{self, Cited},
    evidence::{Evidence, provenance},
    keyring::Keyring,
    statement::Descriptor,
};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco cite 37.3\n  caco cite short/linear/top1 --out top1.intoto.jsonl")]
pub struct CiteArgs {
    /// A number as the table prints it (42.0), LINE/EVALUATION/METRIC, or STAGE/METRIC
    #[arg(value_name = "NUMBER|METRIC")]
    what: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Write the signed statement of every step to this file; `caco audit FILE` verifies it anywhere
    #[arg(short, long, value_name = "FILE.intoto.jsonl")]
    out: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What `caco cite --json` prints.
#[derive(Serialize, JsonSchema)]
pub struct Citation<'c> {
    /// The metric and its chain of results.
    cited: &'c Cited,
    /// The audit of that chain.
    report: &'c Report,
}

pub fn main(args: &CiteArgs, project: &Project) -> Result<ExitCode> {
    let store = open::existing(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let (candidates, notes) = metrics::all(&graph, &store)?;
    open::note(&notes);
    let found = metrics::choose(&args.what, candidates)?;
    let trust = Keyring::locate()?.trust_in()?;
    let nothing = stat::Cache::load(Path::new(""));
    let mut auditor = Auditor::new(&store, &trust, &nothing, &REGISTRY);
    let heads = found.table.map_or_else(|| found.results.clone(), |table| vec![table]);
    heads.into_iter().try_for_each(|key| auditor.key(key))?;
    let report = chain_of(auditor.report()?, &found);
    let cited = Cited {
        figure: found.name.clone(),
        measured: found.measured.clone(),
        results: found.results.clone(),
        chain: citation::chain(&report),
        audited: report.passes(),
    };
    if let Some(out) = &args.out {
        let text = citation::bundle(&store, &cited, &signer()?)?;
        fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    if args.json {
        print_json(&Citation { cited: &cited, report: &report })?;
    } else {
        print_marked(&text(&store, &found, &report)?)?;
    }
    if let Some(out) = &args.out {
        say!(
            "{} signed statements are in {}; `caco audit {}` checks them",
            cited.chain.len() + 1,
            out.display(),
            out.display()
        );
    }
    Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Of a report, the table and what this figure was made from: the table's other figures are left out.
fn chain_of(report: Report, found: &Found) -> Report {
    let Some(table) = found.table else { return report };
    let place = |key: Key| report.nodes.iter().position(|node| node.key == Some(key));
    let mut wanted = vec![false; report.nodes.len()];
    let mut open: Vec<usize> = found.results.iter().filter_map(|key| place(*key)).collect();
    while let Some(i) = open.pop() {
        if !std::mem::replace(&mut wanted[i], true) {
            open.extend(report.nodes[i].inputs.values().filter_map(|source| match source {
                caco_provenance::audit::Source::Node(i) => Some(*i),
                _ => None,
            }));
        }
    }
    place(table).into_iter().for_each(|i| wanted[i] = true);
    report.only(&wanted)
}

fn text(store: &Store, found: &Found, report: &Report) -> Result<String> {
    let measured = &found.measured;
    let share = measured.interval.is_some();
    let value = if share { format!("{:.1} %", 100.0 * measured.value) } else { number::plain(measured.value) };
    let mut text = format!("{value}  {} on {}", found.name, measured.split);
    if let Some(samples) = measured.samples {
        write!(text, ", {samples} images")?;
    }
    if let Some((low, high)) = measured.interval {
        write!(text, ", 95 % interval {:.1} – {:.1}", 100.0 * low, 100.0 * high)?;
    }
    text += "\n";
    // From the number back to the pixels: the last made first.
    let mut order: Vec<usize> = (0..report.nodes.len()).collect();
    order.sort_by(|a, b| report.nodes[*b].started.cmp(&report.nodes[*a].started).then(b.cmp(a)));
    for i in order {
        let node = &report.nodes[i];
        let Some(key) = node.key else { continue };
        writeln!(
            text,
            "{} {:22} {:14} {}  {}",
            node.state().mark(),
            node.stage,
            node.kind,
            key.0.short(),
            signed(node)
        )?;
        for check in node.checks.iter().filter(|check| check.state != State::Pass || check.check == "figures") {
            writeln!(text, "    {} {}: {}", check.state.mark(), check.check, check.message)?;
        }
        if let Some(evidence) = Evidence::of(store, key)?
            && evidence.place("log").exists()
        {
            writeln!(text, "    log {}", evidence.place("log").display())?;
        }
    }
    text += &code(store, found)?;
    Ok(text)
}

fn signed(node: &caco_provenance::audit::Node) -> String {
    let made = node.started.as_deref().and_then(|at| at.get(..16)).unwrap_or_default().replace('T', " ");
    node.signer.as_ref().map_or("unsigned".into(), |name| format!("signed by {name} {made}"))
}

/// The code that made the first of the results.
fn code(store: &Store, found: &Found) -> Result<String> {
    let Some(key) = found.results.first() else { return Ok(String::new()) };
    let Some(envelope) = Evidence::of(store, *key)?.map(|e| e.envelope()).transpose()?.flatten() else {
        return Ok(String::new());
    };
    let statement = provenance(&envelope)?.predicate;
    let dependencies = &statement.build_definition.resolved_dependencies;
    let find = |name: &str| dependencies.iter().find(|d| d.name() == name && d.noted("slot").is_none());
    let mut parts = vec![];
    if let Some(source) = find("source") {
        let dirty = source.annotations.get("dirty") == Some(&true.into());
        let commit = source.digest.get("gitCommit").map_or("", String::as_str);
        parts.push(format!("commit {commit}{}", if dirty { " with changes" } else { "" }));
    }
    let digest = |d: &Descriptor| d.blake3().map_or(String::new(), |digest| digest.short());
    for name in ["pipeline", "code.lock", "Cargo.lock"] {
        parts.extend(find(name).map(|d| format!("{name} {}", digest(d))));
    }
    parts.extend(find("libtorch").and_then(|d| d.uri.clone()));
    Ok(format!("code: {}\n", parts.join(", ")))
}
