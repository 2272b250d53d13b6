//! `caco check`

use super::{PipelineArgs, open, print, print_json};
use anyhow::Result;
use clap::Args;
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco check pipelines/tiny.ron")]
pub struct CheckArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &CheckArgs) -> Result<ExitCode> {
    let graph = open::graph(&args.pipeline)?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    graph.pipeline.stages.iter().for_each(|stage| *kinds.entry(stage.kind).or_default() += 1);
    if args.json {
        let name = &graph.pipeline.name;
        print_json(&serde_json::json!({ "pipeline": name, "stages": graph.pipeline.stages.len(), "kinds": kinds }))?;
    } else {
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        print(&format!(
            "{}: {} stages are right ({})\n",
            graph.pipeline.name,
            graph.pipeline.stages.len(),
            kinds.join(", ")
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
