//! `caco code`

use super::{FAILED, print, print_json};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail};
use caco_inspect::name;
use caco_pipeline::code::{self, Code, Lock};
use caco_pipeline::diagnostic::Diagnostic;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use std::{fmt::Write, fs, path::Path, process::ExitCode};

/// The lock's name, in the folder of the crate.
const FILE: &str = "code.lock";

#[derive(Args)]
#[command(after_help = "Examples:\n  caco code status\n  caco code accept pretrain --because 'renamed a variable'")]
pub struct CodeArgs {
    #[command(subcommand)]
    command: CodeCommand,
}

#[derive(Subcommand)]
enum CodeCommand {
    /// List the stage kinds whose code differs from code.lock
    Status {
        /// Exit with code 1 if one differs
        #[arg(long)]
        check: bool,
        /// List every file and crate that a kind's code consists of
        #[arg(long, value_name = "KIND")]
        parts: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Acknowledge the code of a kind: results of its version stay valid
    Accept {
        /// The kinds
        #[arg(required_unless_present = "all")]
        kinds: Vec<String>,
        /// Acknowledge every kind whose code differs
        #[arg(long, conflicts_with = "kinds")]
        all: bool,
        /// Why the results do not change, or that the version was raised
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
}

pub fn main(args: &CodeArgs) -> Result<ExitCode> {
    match &args.command {
        CodeCommand::Status { parts: Some(kind), json, .. } => parts(find(kind)?, *json),
        CodeCommand::Status { check, json, .. } => status(*check, *json),
        CodeCommand::Accept { kinds, all, because } => accept(kinds, *all, because),
    }
}

fn find(kind: &str) -> Result<&'static Code> {
    let found = REGISTRY.code.kinds().iter().find(|code| code.kind == kind);
    let error = || Diagnostic::new(format!("no stage kind is called '{kind}'"));
    found.ok_or_else(|| name::plain(error().nearest(kind, REGISTRY.code.kinds().iter().map(|c| c.kind))))
}

fn version(code: &Code) -> u32 {
    REGISTRY.find(code.kind).map_or(0, |entry| entry.version)
}

/// The start of its digest.
fn short(code: &Code) -> &str {
    &code.digest[..12]
}

fn parts(code: &Code, json: bool) -> Result<ExitCode> {
    if json {
        let parts: std::collections::BTreeMap<_, _> = code.parts.iter().copied().collect();
        print_json(&parts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: String = code.parts.iter().map(|(name, value)| format!("{value:14} {name}\n")).collect();
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

/// The code behind a stage kind, as `--json` prints it.
#[derive(Serialize, JsonSchema)]
pub struct Status<'s> {
    /// The kind.
    kind: &'s str,
    /// Its version.
    version: u32,
    /// The digest of its code.
    digest: &'s str,
    /// `acknowledged`, `differs` or `not acknowledged`.
    state: &'s str,
    /// The files and libraries that differ from those acknowledged.
    changes: Vec<String>,
    /// What code.lock holds of it.
    acknowledged: Option<Accepted<'s>>,
}

/// The acknowledged code of a kind.
#[derive(Serialize, JsonSchema)]
struct Accepted<'s> {
    /// The kind's version.
    version: u32,
    /// The digest of the code.
    digest: &'s str,
    /// Why this code gives the results of its version.
    because: &'s str,
}

fn status(check: bool, json: bool) -> Result<ExitCode> {
    let lock = REGISTRY.code.lock().context("code.lock, as this program was built with it")?;
    let mut differing = 0;
    let mut text = String::new();
    let mut rows = vec![];
    for code in REGISTRY.code.kinds() {
        let known = lock.kinds.get(code.kind);
        let same = known.is_some_and(|known| known.digest == code.digest);
        let changes = known.filter(|_| !same).map(|known| code::changes(known, code)).unwrap_or_default();
        differing += usize::from(!same);
        let state = match known {
            Some(_) if same => "acknowledged",
            Some(_) => "differs",
            None => "not acknowledged",
        };
        writeln!(text, "{:16} version {}  {}  {state}", code.kind, version(code), short(code))?;
        for (name, what) in &changes {
            writeln!(text, "{:16} {name} {what}", "")?;
        }
        let changes: Vec<_> = changes.iter().map(|(name, what)| format!("{name} {what}")).collect();
        rows.push(Status {
            kind: code.kind,
            version: version(code),
            digest: code.digest,
            state,
            changes,
            acknowledged: known.map(|known| Accepted {
                version: known.version,
                digest: &known.digest,
                because: &known.because,
            }),
        });
    }
    if json {
        print_json(&rows)?;
    } else {
        print(&text)?;
    }
    if differing > 0 {
        say!(
            "{differing} differ: their digest joins the keys, so their stages run again. Where results change, raise \
             the kind's VERSION; then, or where they do not, `caco code accept KIND --because \"…\"`"
        );
    }
    Ok(if check && differing > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn accept(kinds: &[String], all: bool, because: &str) -> Result<ExitCode> {
    if because.trim().is_empty() {
        bail!("--because is empty; say why the results do not change, for readers of the history");
    }
    let manifest = fs::read_to_string("Cargo.toml").unwrap_or_default();
    if !manifest.contains("name = \"caco\"") {
        bail!("there is no caco source here; run this in the folder of its Cargo.toml and {FILE}");
    }
    let path = Path::new(FILE);
    let text = if path.exists() { fs::read_to_string(path).context("cannot read code.lock")? } else { String::new() };
    let mut lock = Lock::parse(&text).context("code.lock cannot be read; `git checkout code.lock` brings it back")?;
    let chosen: Vec<&Code> = if all {
        let differs = |code: &&Code| lock.kinds.get(code.kind).is_none_or(|known| known.digest != code.digest);
        REGISTRY.code.kinds().iter().filter(differs).collect()
    } else {
        kinds.iter().map(|kind| find(kind)).collect::<Result<_>>()?
    };
    for code in &chosen {
        lock.accept(code, version(code), because);
        say!("{}: {} acknowledged, version {}", code.kind, short(code), version(code));
    }
    lock.kinds.retain(|kind, _| REGISTRY.code.kinds().iter().any(|code| code.kind == kind));
    caco_engine::store::write_aside(path, lock.text().as_bytes()).map_err(caco_engine::store::Error::outside)?;
    say!("{FILE} is written; build again, and commit it");
    Ok(ExitCode::SUCCESS)
}
