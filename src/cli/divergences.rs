//! `caco divergences`

use super::{Project, open, print, print_json};
use anyhow::Result;
use caco_engine::store::Cause;
use caco_provenance::{
    divergence::{self, Diverging},
    keyring::Keyring,
};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "Examples:\n  caco divergences\n  caco divergences 'linear/*'")]
pub struct DivergencesArgs {
    /// The start of a key, or a pattern of stages (`linear/*`) [default: all]
    #[arg(value_name = "KEY|STAGE")]
    what: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &DivergencesArgs, project: &Project) -> Result<ExitCode> {
    let store = open::existing(project)?;
    let pattern = args.what.as_deref().map(glob::Pattern::new).transpose()?;
    let fits = |found: &Diverging| {
        let start = args.what.as_deref().unwrap_or_default();
        pattern.as_ref().is_none_or(|p| p.matches(&found.stage)) || found.key.to_string().starts_with(start)
    };
    let trust = Keyring::locate()?.trust_in()?;
    let found: Vec<Diverging> = divergence::all(&store, &trust)?.into_iter().filter(fits).collect();
    if args.json {
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        say!("no key was seen with different bytes");
    }
    print(&found.iter().map(text).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Diverging) -> String {
    let stage = if found.stage.is_empty() { "a collected result" } else { &found.stage };
    let mut text = format!("{}  {stage}", found.key.0.short());
    if !found.outputs.is_empty() {
        text += &format!("  differs in {}", found.outputs.join(", "));
    }
    text.push('\n');
    for side in &found.records {
        let stands = if side.stands { "stands" } else { "kept" };
        let stands = if side.there { stands } else { "gone" };
        let made = match (&side.started, &side.host) {
            (Some(started), Some(host)) => {
                format!("  made {} on {host}", started.get(..19).unwrap_or(started).replace('T', " "))
            }
            _ => String::new(),
        };
        let signer = match &side.signer {
            Some(name) => format!("  signed by {name}"),
            None if side.there => "  not signed by a trusted key".into(),
            None => String::new(),
        };
        text += &format!("  {:6}  {}{made}{signer}\n", stands, side.record);
        let class = side.class.as_object().into_iter().flatten();
        let class: Vec<String> =
            class.map(|(name, value)| format!("{name} {}", value.to_string().replace('"', ""))).collect();
        if !class.is_empty() {
            text += &format!("          {}\n", class.join(", "));
        }
    }
    for note in &found.notes {
        let cause = match &note.cause {
            Cause::Rerun => "the stage ran again".to_string(),
            Cause::Copied(from) => format!("copied from {}", from.display()),
        };
        text += &format!("  noticed {} on {}: {cause}\n", note.noticed.replace('T', " ").replace('Z', ""), note.host);
    }
    text
}
