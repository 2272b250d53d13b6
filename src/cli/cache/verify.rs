//! `caco cache verify`

use super::super::{
    FAILED, Project,
    display::{bytes, count},
    open, print, print_json,
};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct VerifyArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where anything does not hold.
pub fn main(args: &VerifyArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let check = store.verify()?;
    store.save_accelerators();
    if args.json {
        print_json(&check)?;
    } else {
        let mut text = String::new();
        for finding in &check.findings {
            text += &format!("{}: {}\n", finding.path.display(), finding.what);
            let runs = finding
                .keys
                .iter()
                .map(|key| format!("  key {} runs again when it is next asked for\n", key.0.short()));
            text.extend(runs);
        }
        let found = match check.findings.len() {
            0 => "all hold".to_string(),
            n => format!("{n} do not hold"),
        };
        text += &format!(
            "{}, {}, {} read: {found}\n",
            count(check.records, "record"),
            count(check.objects, "object"),
            bytes(check.bytes)
        );
        print(&text)?;
    }
    Ok(if check.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
