//! `caco graph`

use super::{PipelineArgs, open, print, print_json};
use anyhow::Result;
use caco_engine::graph::{Graph, Id, Origin};
use clap::{Args, ValueEnum};
use std::{collections::BTreeSet, fmt::Write, process::ExitCode};

#[derive(Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages or patterns, with all they need; left out: the pipeline's targets
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// The language
    #[arg(long, value_enum, default_value = "mermaid")]
    format: Format,
    /// The stages and their edges as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For Graphviz: `caco graph PIPELINE --format dot | dot -Tsvg`
    Dot,
    /// For Markdown
    Mermaid,
}

pub fn main(args: &GraphArgs) -> Result<ExitCode> {
    let graph = open::graph(&args.pipeline)?;
    let ids = graph.with_sources(&open::select(&graph, &args.stages)?);
    let edges = edges(&graph, &ids);
    if args.json {
        let name = |id: &Id| &graph.stage(*id).name;
        let stages: Vec<_> =
            ids.iter().map(|id| serde_json::json!({ "stage": name(id), "kind": graph.stage(*id).kind })).collect();
        let edges: Vec<_> = edges.iter().map(|(from, to)| [name(from), name(to)]).collect();
        print_json(&serde_json::json!({ "stages": stages, "edges": edges }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    match args.format {
        Format::Dot => {
            writeln!(text, "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];", graph.pipeline.name)?;
            for id in &ids {
                let stage = graph.stage(*id);
                writeln!(text, "  s{id} [label=\"{}\\n{}\"];", stage.name, stage.kind)?;
            }
            edges.iter().try_for_each(|(from, to)| writeln!(text, "  s{from} -> s{to};"))?;
            writeln!(text, "}}")?;
        }
        Format::Mermaid => {
            writeln!(text, "graph LR")?;
            for id in &ids {
                writeln!(text, "  s{id}[\"{}\"]", graph.stage(*id).name)?;
            }
            edges.iter().try_for_each(|(from, to)| writeln!(text, "  s{from} --> s{to}"))?;
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What reads from what by content; inputs that are only located would clutter the picture.
fn edges(graph: &Graph, ids: &[Id]) -> BTreeSet<(Id, Id)> {
    let mut edges = BTreeSet::new();
    for id in ids {
        for edge in graph.edges(*id).iter().filter(|edge| edge.hashed) {
            if let Origin::Output(of, _) = edge.from {
                edges.insert((of, *id));
            }
        }
    }
    edges
}
