//! `caco graph`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_engine::graph::Id;
use caco_inspect::{graph::graph, name};
use clap::{Args, ValueEnum};
use std::{collections::HashMap, fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco graph tiny --format dot | dot -Tsvg > tiny.svg")]
pub struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages or patterns, with all that they need [default: the pipeline's targets]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// The output language, of Graphviz or of Markdown
    #[arg(long, value_enum, default_value = "mermaid")]
    format: Format,
    /// The stages and their edges as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    // For Graphviz.
    Dot,
    // For Markdown.
    Mermaid,
}

pub fn main(args: &GraphArgs, project: &Project) -> Result<ExitCode> {
    let pipeline = open::graph(&args.pipeline, project)?;
    let ids = pipeline.with_sources(&name::select(&pipeline, &args.stages)?);
    let graph = graph(&pipeline, &ids);
    if args.json {
        print_json(&graph)?;
        return Ok(ExitCode::SUCCESS);
    }
    let numbers: HashMap<&str, Id> = graph.stages.iter().zip(&ids).map(|(s, id)| (&*s.stage, *id)).collect();
    let edges = graph.edges.iter().map(|(from, to)| (numbers[&**from], numbers[&**to]));
    let stages = graph.stages.iter().map(|stage| (numbers[&*stage.stage], stage));
    let mut text = String::new();
    match args.format {
        Format::Dot => {
            writeln!(text, "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];", pipeline.pipeline.name)?;
            for (number, stage) in stages {
                writeln!(text, "  s{number} [label=\"{}\\n{}\"];", stage.stage, stage.kind)?;
            }
            edges.into_iter().try_for_each(|(from, to)| writeln!(text, "  s{from} -> s{to};"))?;
            writeln!(text, "}}")?;
        }
        Format::Mermaid => {
            writeln!(text, "graph LR")?;
            for (number, stage) in stages {
                writeln!(text, "  s{number}[\"{}\"]", stage.stage)?;
            }
            edges.into_iter().try_for_each(|(from, to)| writeln!(text, "  s{from} --> s{to}"))?;
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
