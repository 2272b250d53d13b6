//! `caco cache ls`

use super::super::{Project, display::bytes, open, print, print_json};
use anyhow::Result;
use caco_inspect::store::{Row, rows};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct LsArgs {
    /// A pattern of the stage, kind, pipeline or key (`linear/*`) [default: all]
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &LsArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let pattern = args.pattern.as_deref().map(glob::Pattern::new).transpose()?;
    let fits = |row: &Row| {
        let key = row.key.to_string();
        let words = [row.text("stage"), row.text("kind"), row.text("pipeline"), &key, &key[..12]];
        pattern.as_ref().is_none_or(|p| words.iter().any(|word| p.matches(word)))
    };
    let rows: Vec<Row> = rows(&store)?.into_iter().filter(fits).collect();
    if args.json {
        print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for row in &rows {
        let mut marks = String::new();
        if row.pinned {
            marks += "  pinned";
        }
        if row.records > 1 {
            marks += &format!("  {} records: they diverge", row.records);
        }
        text += &format!(
            "{}  {}  {:>9}  {:>8.1} s  {:14} {}{marks}\n",
            row.key.0.short(),
            row.text("started").get(..19).unwrap_or("?").replace('T', " "),
            bytes(row.bytes),
            row.made["seconds"].as_f64().unwrap_or_default(),
            row.text("kind"),
            row.text("stage"),
        );
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
