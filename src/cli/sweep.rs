//! `caco sweep`

use super::{PipelineArgs, StoreArgs, open, print, print_json};
use anyhow::{Result, bail};
use caco_engine::{
    event::Failed,
    graph::{Graph, Id},
    key::Key,
    plan::{Plan, Step},
    store::Store,
};
use caco_measure::metric;
use caco_pipeline::sweep::{Filter, Point, Sweep};
use clap::Args;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
    process::ExitCode,
};

#[derive(Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The sweep; left out: all of the file
    #[arg(value_name = "SWEEP")]
    sweep: Option<String>,
    /// Order by a metric, the best first; left out: the order of the file
    #[arg(long, value_name = "METRIC")]
    sort: Option<String>,
    /// The lowest is the best; so it is anyway for what is called a loss or an error
    #[arg(long)]
    lowest: bool,
    /// Only points for which this holds, by axes and metrics: 'tau < 0.1 && top1 > 0.4'
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// A row for each seed, not one for all seeds of a point
    #[arg(long)]
    each: bool,
    /// Print it as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// How far a point is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Failed,
    Blocked,
    Running,
    Waiting,
    Done,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Failed => "failed",
            State::Blocked => "blocked",
            State::Running => "running",
            State::Waiting => "to run",
            State::Done => "done",
        }
    }
}

/// A stage of a point that failed when it ran last.
#[derive(Clone, Debug, Serialize)]
struct Failure {
    stage: String,
    error: String,
    again: String,
}

/// One point with one seed.
#[derive(Clone, Debug)]
struct Single {
    values: Vec<String>,
    state: State,
    metrics: BTreeMap<String, f64>,
    keys: BTreeMap<String, Key>,
    failures: Vec<Failure>,
    stages: Vec<String>,
}

/// A figure over the seeds of a point.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figure {
    mean: f64,
    /// Standard deviation between seeds; none with a single one.
    sd: Option<f64>,
    seeds: usize,
}

/// A row: a point, its seeds taken together.
#[derive(Debug, Serialize)]
struct Row {
    axes: BTreeMap<String, String>,
    #[serde(skip)]
    values: Vec<String>,
    state: State,
    done: usize,
    of: usize,
    metrics: BTreeMap<String, Figure>,
    keys: Vec<BTreeMap<String, Key>>,
    alone: String,
    failures: Vec<Failure>,
}

#[derive(Serialize)]
struct Table {
    sweep: String,
    axes: Vec<String>,
    metrics: Vec<String>,
    rows: Vec<Row>,
    best: Option<usize>,
    best_by: Option<String>,
    /// Whether the lowest is the best.
    lowest: bool,
}

pub fn main(args: &SweepArgs, store: &StoreArgs) -> Result<ExitCode> {
    let (graph, store) = open::both(&args.pipeline, store)?;
    let sweeps = wanted(args, &graph)?;
    let ids: Vec<Id> = sweeps.iter().flat_map(|sweep| stages_of(&graph, sweep)).collect();
    let plan = Plan::new(&graph, &graph.with_sources(&ids), &store, &HashSet::new())?;
    let mut tables = vec![];
    for sweep in sweeps {
        tables.push(table(args, &graph, &store, &plan, sweep)?);
    }
    if args.json {
        print_json(&tables)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text: Vec<String> = tables.iter().map(|table| if args.csv { csv(table) } else { terminal(table) }).collect();
    print(&text.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn wanted<'g>(args: &SweepArgs, graph: &'g Graph) -> Result<Vec<&'g Sweep>> {
    let all = &graph.pipeline.sweeps;
    let Some(name) = &args.sweep else {
        if all.is_empty() {
            bail!("{} has no sweeps; write sweeps: {{\"name\": (axes: {{…}})}}", graph.pipeline.path.display());
        }
        return Ok(all.iter().collect());
    };
    match all.iter().find(|sweep| sweep.name == *name) {
        Some(sweep) => Ok(vec![sweep]),
        None => {
            let error = caco_pipeline::diagnostic::Diagnostic::new(format!("no sweep is called '{name}'"));
            Err(open::plain(error.nearest(name, all.iter().map(|sweep| sweep.name.as_str()))))
        }
    }
}

fn names<'s>(sweep: &'s Sweep, point: &'s Point) -> impl Iterator<Item = String> + 's {
    sweep.stages.iter().map(|stage| format!("{stage}/{}", point.variant))
}

fn stages_of(graph: &Graph, sweep: &Sweep) -> Vec<Id> {
    sweep.points.iter().flat_map(|point| names(sweep, point)).filter_map(|name| graph.find(&name).ok()).collect()
}

fn table(args: &SweepArgs, graph: &Graph, store: &Store, plan: &Plan, sweep: &Sweep) -> Result<Table> {
    let singles =
        sweep.points.iter().map(|point| single(graph, store, plan, sweep, point)).collect::<Result<Vec<_>>>()?;
    let together = sweep.seeds && !args.each;
    let axes: Vec<String> = sweep.axes[..sweep.axes.len() - usize::from(together)].to_vec();
    let mut rows: Vec<Row> = vec![];
    let mut place: HashMap<Vec<String>, usize> = HashMap::new();
    let mut grouped: Vec<Vec<&Single>> = vec![];
    for single in &singles {
        let values = single.values[..axes.len()].to_vec();
        let at = *place.entry(values).or_insert(grouped.len());
        if at == grouped.len() {
            grouped.push(vec![]);
        }
        grouped[at].push(single);
    }
    for group in grouped {
        rows.push(row(graph, &axes, &group));
    }
    let mut metrics: Vec<String> = vec![];
    for name in rows.iter().flat_map(|row| row.metrics.keys()) {
        if !metrics.contains(name) {
            metrics.push(name.clone());
        }
    }
    if let Some(filter) = &args.filter {
        rows = filtered(rows, filter, &axes, &metrics)?;
    }
    let by = match &args.sort {
        None => metrics.first().cloned(),
        Some(name) if metrics.contains(name) || rows.iter().all(|row| row.metrics.is_empty()) => Some(name.clone()),
        Some(name) => bail!("no metric is called '{name}'; there are {}", metrics.join(", ")),
    };
    let value = |row: &Row| by.as_ref().and_then(|by| row.metrics.get(by)).map(|figure| figure.mean);
    let is_loss = |name: &String| ["loss", "error"].iter().any(|word| name.to_lowercase().ends_with(word));
    let lowest = args.lowest || by.as_ref().is_some_and(is_loss);
    let better = |a: f64, b: f64| if lowest { b.total_cmp(&a) } else { a.total_cmp(&b) };
    if args.sort.is_some() {
        rows.sort_by(|a, b| match (value(a), value(b)) {
            (Some(a), Some(b)) => better(b, a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }
    let best = (0..rows.len()).filter(|i| value(&rows[*i]).is_some());
    // Of equals the first.
    let best =
        best.rev().max_by(|a, b| better(value(&rows[*a]).unwrap_or_default(), value(&rows[*b]).unwrap_or_default()));
    let best_by = by.filter(|_| best.is_some());
    Ok(Table { sweep: sweep.name.clone(), axes, metrics, rows, best, best_by, lowest })
}

fn single(graph: &Graph, store: &Store, plan: &Plan, sweep: &Sweep, point: &Point) -> Result<Single> {
    let mut single = Single {
        values: point.values.clone(),
        state: State::Done,
        metrics: BTreeMap::new(),
        keys: BTreeMap::new(),
        failures: vec![],
        stages: vec![],
    };
    for (stage, name) in sweep.stages.iter().zip(names(sweep, point)) {
        let Ok(id) = graph.find(&name) else { continue };
        single.stages.push(name);
        let state = match plan.step(id) {
            Some(Step::Hit(published)) => {
                single.keys.insert(stage.clone(), published.key);
                if let Some(output) = published.output(caco_engine::graph::METRICS) {
                    for metric in metric::read(&store.object(output.blake3))? {
                        add_metric(&mut single.metrics, stage, &metric);
                    }
                }
                State::Done
            }
            Some(Step::Run(key)) => {
                let failed = Failed::read(&store.work(*key));
                match failed {
                    _ if store.is_locked(*key) => State::Running,
                    Some(failed) => {
                        single.failures.push(failure(graph, id, failed));
                        State::Failed
                    }
                    None => State::Waiting,
                }
            }
            Some(Step::Blocked(_) | Step::Behind(_)) => State::Blocked,
            Some(Step::MayRun) | None => State::Waiting,
        };
        single.state = single.state.min(state);
    }
    Ok(single)
}

/// By name; where two stages or splits have one of the same name, the later ones with what tells them apart.
fn add_metric(metrics: &mut BTreeMap<String, f64>, stage: &str, metric: &metric::Metric) {
    let names = [
        metric.name.clone(),
        format!("{}.{}", metric.split, metric.name),
        format!("{}.{}.{}", stage.replace('/', "."), metric.split, metric.name),
    ];
    if let Some(free) = names.into_iter().find(|name| !metrics.contains_key(name)) {
        metrics.insert(free, metric.value);
    }
}

fn failure(graph: &Graph, id: Id, failed: Failed) -> Failure {
    let stage = graph.stage(id).name.clone();
    let again = command(graph, std::slice::from_ref(&stage));
    Failure { stage, error: failed.error, again }
}

/// The command that runs some stages alone.
fn command(graph: &Graph, stages: &[String]) -> String {
    let overlay = &graph.pipeline.overlay;
    let profile = overlay.profile.as_ref().map_or(String::new(), |p| format!(" --profile {p}"));
    let set: String = overlay.set.iter().map(|s| format!(" --set '{s}'")).collect();
    let stages: String = stages.iter().map(|stage| format!(" '{stage}'")).collect();
    format!("caco run {}{profile}{set}{stages}", graph.pipeline.path.display())
}

fn row(graph: &Graph, axes: &[String], group: &[&Single]) -> Row {
    let mut metrics: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in group.iter().flat_map(|single| &single.metrics) {
        metrics.entry(name.clone()).or_default().push(*value);
    }
    let last: Vec<String> = group.iter().filter_map(|single| single.stages.last().cloned()).collect();
    let values = group[0].values[..axes.len()].to_vec();
    Row {
        axes: axes.iter().cloned().zip(values.iter().cloned()).collect(),
        values,
        state: group.iter().map(|single| single.state).min().unwrap_or(State::Done),
        done: group.iter().filter(|single| single.state == State::Done).count(),
        of: group.len(),
        metrics: metrics.into_iter().map(|(name, values)| (name, figure(&values))).collect(),
        keys: group.iter().map(|single| single.keys.clone()).collect(),
        alone: command(graph, &last),
        failures: group.iter().flat_map(|single| single.failures.clone()).collect(),
    }
}

fn figure(values: &[f64]) -> Figure {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.len() > 1).then(|| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    Figure { mean, sd, seeds: values.len() }
}

/// Rows for which the expression holds; one that has no value yet for a metric named in it is left out.
fn filtered(rows: Vec<Row>, text: &str, axes: &[String], metrics: &[String]) -> Result<Vec<Row>> {
    let names: Vec<&str> = axes.iter().chain(metrics).map(String::as_str).collect();
    let filter = Filter::read(text, &names).map_err(open::plain)?;
    let mut kept = vec![];
    for row in rows {
        let figures: Vec<(&str, String)> =
            row.metrics.iter().map(|(name, f)| (name.as_str(), f.mean.to_string())).collect();
        let values = row.axes.iter().map(|(a, b)| (a.as_str(), b.as_str()));
        let values = values.chain(figures.iter().map(|(a, b)| (*a, b.as_str())));
        let known: HashSet<&str> = values.clone().map(|(name, _)| name).collect();
        if filter.names().all(|name| known.contains(name)) && filter.keeps(values).map_err(open::plain)? {
            kept.push(row);
        }
    }
    Ok(kept)
}

fn shown(value: f64) -> String {
    let digits = if value == 0.0 || (1e-3..1e5).contains(&value.abs()) { 4 } else { return format!("{value:.3e}") };
    format!("{value:.digits$}")
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
        writeln!(text, "failed: {}: {}\n  again: {}", failure.stage, failure.error, failure.again)
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
            let figure = row.metrics.get(name);
            line.push(figure.map_or(String::new(), |f| f.mean.to_string()));
            line.push(figure.and_then(|f| f.sd).map_or(String::new(), |sd| sd.to_string()));
            line.push(figure.map_or(String::new(), |f| f.seeds.to_string()));
        }
        lines.push(line);
    }
    lines.iter().map(|line| line.iter().map(|cell| quoted(cell)).collect::<Vec<String>>().join(",") + "\n").collect()
}
