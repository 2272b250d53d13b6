//! `caco sweep`

use super::{PipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_engine::printable::printable;
use caco_inspect::sweep::{self, Failure, Select, Table};
use caco_measure::number;
use clap::Args;
use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco sweep pipelines/sweep.ron --sort top1\n  caco sweep pipelines/sweep.ron --filter 'tau < 0.1' --csv"
)]
pub struct SweepArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The sweep [default: every sweep of the file]
    #[arg(value_name = "SWEEP")]
    sweep: Option<String>,
    /// Sort by a metric, the best first [default: the order of the file]
    #[arg(long, value_name = "METRIC")]
    sort: Option<String>,
    /// Take the lowest value as the best (implied for names that end in loss or error)
    #[arg(long)]
    lowest: bool,
    /// Only points for which this holds: 'tau < 0.1 && top1 > 0.4'
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Print a row for each seed, not one for all seeds of a point
    #[arg(long)]
    each: bool,
    /// Print it as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &SweepArgs, project: &Project) -> Result<ExitCode> {
    let (graph, store) = open::both(&args.pipeline, project)?;
    let select = Select { sort: args.sort.clone(), lowest: args.lowest, filter: args.filter.clone(), each: args.each };
    let tables = sweep::tables(&graph, &store, args.sweep.as_deref(), &select)?;
    if args.json {
        print_json(&tables)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text: Vec<String> = tables.iter().map(|table| if args.csv { csv(table) } else { terminal(table) }).collect();
    print(&text.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(value: f64) -> String {
    match value {
        value if !value.is_finite() || value == 0.0 || (1e-3..1e5).contains(&value.abs()) => number::decimals(value, 4),
        value => format!("{value:.3e}"),
    }
}

fn terminal(table: &Table) -> String {
    let mut text = String::new();
    let mut grid = comfy_table::Table::new();
    grid.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    grid.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    grid.set_header(table.axes.iter().chain([&"state".to_string()]).chain(&table.metrics));
    for row in &table.rows {
        let state =
            if row.of > 1 { format!("{} {}/{}", row.state.word(), row.done, row.of) } else { row.state.word().into() };
        let metric = |name: &String| {
            row.metrics.get(name).map_or(String::new(), |f| match f.sd {
                Some(sd) => format!("{} ± {}", shown(f.mean), shown(sd)),
                None => shown(f.mean),
            })
        };
        grid.add_row(row.values.iter().cloned().chain([state]).chain(table.metrics.iter().map(metric)));
    }
    let (done, of) = table.rows.iter().fold((0, 0), |(done, of), row| (done + row.done, of + row.of));
    writeln!(text, "sweep {}: {done} of {of} done\n{grid}", table.sweep).expect("a string takes all text");
    if let (Some(best), Some(by)) = (table.best, &table.best_by) {
        let row = &table.rows[best];
        let point: Vec<String> =
            table.axes.iter().zip(&row.values).map(|(axis, value)| format!("{axis}={value}")).collect();
        let which = if table.lowest { "lowest" } else { "highest" };
        writeln!(text, "best by {by} ({which}): {} ({})", point.join(", "), shown(row.metrics[by].mean))
            .expect("a string takes all text");
        for stage in row.keys.first().into_iter().flat_map(BTreeMap::keys) {
            let keys = row.keys.iter().filter_map(|of_seed| of_seed.get(stage)).map(|key| key.0.short().to_string());
            writeln!(text, "  {stage}: {}", keys.collect::<Vec<_>>().join(" ")).expect("a string takes all text");
        }
        writeln!(text, "  alone: {}", row.alone).expect("a string takes all text");
    }
    let failures: Vec<&Failure> = table.rows.iter().flat_map(|row| &row.failures).collect();
    for failure in &failures {
        writeln!(text, "failed: {}: {}\n  again: {}", failure.stage, printable(&failure.error), failure.again)
            .expect("a string takes all text");
    }
    text
}

fn csv(table: &Table) -> String {
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
    };
    let mut head: Vec<String> = table.axes.clone();
    head.extend(["state".into(), "done".into(), "of".into()]);
    head.extend(table.metrics.iter().flat_map(|name| [name.clone(), format!("{name}_sd"), format!("{name}_seeds")]));
    let mut lines = vec![head];
    for row in &table.rows {
        let mut line: Vec<String> = row.values.clone();
        line.extend([row.state.word().into(), row.done.to_string(), row.of.to_string()]);
        for name in &table.metrics {
            let metric = row.metrics.get(name);
            line.push(metric.map_or(String::new(), |f| number::plain(f.mean)));
            line.push(metric.and_then(|f| f.sd).map_or(String::new(), number::plain));
            line.push(metric.map_or(String::new(), |f| f.seeds.to_string()));
        }
        lines.push(line);
    }
    lines.iter().map(|line| line.iter().map(|cell| quoted(cell)).collect::<Vec<String>>().join(",") + "\n").collect()
}
