//! The points of a sweep: the state of each, its metrics over seeds, and the best one.

use super::{name, stage};
use anyhow::{Result, bail};
use caco_engine::{
    event,
    graph::{Graph, Id},
    key::Key,
    plan::{Plan, Step},
    store::Store,
};
use caco_measure::{metric::Metric, number};
use caco_pipeline::{
    diagnostic::Diagnostic,
    sweep::{Filter, Point, Sweep},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The state of a point, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PointState")]
pub enum State {
    /// A stage of it failed when it ran last.
    Failed,
    /// Inputs are missing.
    Blocked,
    /// A run computes it now.
    Running,
    /// It has not run.
    Waiting,
    /// All its results are in the store.
    Done,
}

impl State {
    /// In words.
    pub fn word(self) -> &'static str {
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
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Failure {
    /// The stage's name.
    pub stage: String,
    /// The error.
    pub error: String,
    /// The command that runs it again.
    pub again: String,
}

/// A metric over the seeds of a point.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct OverSeeds {
    /// The mean. One that is not finite is `"nan"`, `"inf"` or `"-inf"`.
    #[serde(serialize_with = "number::serialize")]
    #[schemars(schema_with = "number::schema")]
    pub mean: f64,
    /// The standard deviation between seeds; none with a single one.
    #[serde(serialize_with = "number::serialize_some")]
    #[schemars(schema_with = "number::schema_some")]
    pub sd: Option<f64>,
    /// How many seeds it is over.
    pub seeds: usize,
}

/// A point, its seeds taken together.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its value on each axis.
    pub axes: BTreeMap<String, String>,
    /// The same, in the order of the axes.
    #[serde(skip)]
    pub values: Vec<String>,
    /// Its state: the worst of its seeds.
    pub state: State,
    /// How many of its seeds are done.
    pub done: usize,
    /// How many seeds it has.
    pub of: usize,
    /// Its metrics by name.
    pub metrics: BTreeMap<String, OverSeeds>,
    /// For each seed, the key of each stage that has a result.
    pub keys: Vec<BTreeMap<String, Key>>,
    /// The command that runs this point alone.
    pub alone: String,
    /// Its stages that failed when they ran last.
    pub failures: Vec<Failure>,
}

/// A sweep.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Table {
    /// Its name.
    pub sweep: String,
    /// Its axes, in the order of the file.
    pub axes: Vec<String>,
    /// The metrics that any of its points has.
    pub metrics: Vec<String>,
    /// Its points.
    pub rows: Vec<Row>,
    /// The best of the rows, counted from 0.
    pub best: Option<usize>,
    /// The metric that the best one is best by.
    pub best_by: Option<String>,
    /// Whether the lowest is the best.
    pub lowest: bool,
}

/// Which rows of a sweep, and in which order.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Order by a metric, the best first. None: the order of the file.
    pub sort: Option<String>,
    /// The lowest is the best. It is anyway for a metric whose name ends in `loss` or `error`.
    pub lowest: bool,
    /// Only points for which this expression over axes and metrics holds.
    pub filter: Option<String>,
    /// A row for each seed.
    pub each: bool,
}

/// The sweep of this name; all of the pipeline's without one.
///
/// # Errors
/// Where there is none, or the store cannot be read, or a metric or expression is not one of the sweep's.
pub fn tables(graph: &Graph, store: &Store, sweep: Option<&str>, select: &Select) -> Result<Vec<Table>> {
    let sweeps = named(graph, sweep)?;
    let ids: Vec<Id> = sweeps.iter().flat_map(|sweep| stages_of(graph, sweep)).collect();
    let plan = Plan::new(graph, &graph.with_sources(&ids), store, &HashSet::new())?;
    sweeps.into_iter().map(|sweep| table(graph, store, &plan, sweep, select)).collect()
}

fn named<'g>(graph: &'g Graph, name: Option<&str>) -> Result<Vec<&'g Sweep>> {
    let all = &graph.pipeline.sweeps;
    let Some(name) = name else {
        if all.is_empty() {
            bail!("{} has no sweeps; write sweeps: {{\"name\": (axes: {{…}})}}", graph.pipeline.path.display());
        }
        return Ok(all.iter().collect());
    };
    match all.iter().find(|sweep| sweep.name == *name) {
        Some(sweep) => Ok(vec![sweep]),
        None => {
            let error = Diagnostic::new(format!("no sweep is called '{name}'"));
            Err(name::plain(error.nearest(name, all.iter().map(|sweep| sweep.name.as_str()))))
        }
    }
}

fn names<'s>(sweep: &'s Sweep, point: &'s Point) -> impl Iterator<Item = String> + 's {
    sweep.stages.iter().map(|stage| format!("{stage}/{}", point.variant))
}

fn stages_of(graph: &Graph, sweep: &Sweep) -> Vec<Id> {
    sweep.points.iter().flat_map(|point| names(sweep, point)).filter_map(|name| graph.find(&name).ok()).collect()
}

fn table(graph: &Graph, store: &Store, plan: &Plan, sweep: &Sweep, select: &Select) -> Result<Table> {
    let singles =
        sweep.points.iter().map(|point| single(graph, store, plan, sweep, point)).collect::<Result<Vec<_>>>()?;
    let together = sweep.seeds && !select.each;
    let axes: Vec<String> = sweep.axes[..sweep.axes.len() - usize::from(together)].to_vec();
    let mut rows: Vec<Row> = grouped(&singles, axes.len()).iter().map(|group| row(graph, &axes, group)).collect();
    let mut metrics: Vec<String> = vec![];
    for name in rows.iter().flat_map(|row| row.metrics.keys()) {
        if !metrics.contains(name) {
            metrics.push(name.clone());
        }
    }
    if let Some(filter) = &select.filter {
        rows = filtered(rows, filter, &axes, &metrics)?;
    }
    let mut table =
        Table { sweep: sweep.name.clone(), axes, metrics, rows, best: None, best_by: None, lowest: select.lowest };
    order(&mut table, select)?;
    Ok(table)
}

/// Points that agree in the first axes, in the order of the first of each.
fn grouped(singles: &[Single], axes: usize) -> Vec<Vec<&Single>> {
    let mut place: HashMap<&[String], usize> = HashMap::new();
    let mut groups: Vec<Vec<&Single>> = vec![];
    for single in singles {
        let at = *place.entry(&single.values[..axes]).or_insert(groups.len());
        if at == groups.len() {
            groups.push(vec![]);
        }
        groups[at].push(single);
    }
    groups
}

/// Sorts the rows as asked, and finds the best.
fn order(table: &mut Table, select: &Select) -> Result<()> {
    let by = match &select.sort {
        None => table.metrics.first().cloned(),
        Some(name) if table.metrics.contains(name) || table.rows.iter().all(|row| row.metrics.is_empty()) => {
            Some(name.clone())
        }
        Some(name) => bail!("no metric is called '{name}'; there are {}", table.metrics.join(", ")),
    };
    let value = |row: &Row| by.as_ref().and_then(|by| row.metrics.get(by)).map(|metric| metric.mean);
    // A training that diverged is not the best one, whichever way round.
    let finite = |row: &Row| value(row).filter(|value| value.is_finite());
    let is_loss = |name: &String| ["loss", "error"].iter().any(|word| name.to_lowercase().ends_with(word));
    table.lowest |= by.as_ref().is_some_and(is_loss);
    let lowest = table.lowest;
    let better = |a: f64, b: f64| if lowest { b.total_cmp(&a) } else { a.total_cmp(&b) };
    if select.sort.is_some() {
        table.rows.sort_by(|a, b| match (finite(a), finite(b)) {
            (Some(a), Some(b)) => better(b, a),
            (None, None) => value(b).is_some().cmp(&value(a).is_some()),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }
    let rows = &table.rows;
    let best = (0..rows.len()).filter(|i| finite(&rows[*i]).is_some());
    // Of equals the first.
    table.best =
        best.rev().max_by(|a, b| better(finite(&rows[*a]).unwrap_or_default(), finite(&rows[*b]).unwrap_or_default()));
    table.best_by = by.filter(|_| table.best.is_some());
    Ok(())
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
                for metric in stage::metrics(store, published)? {
                    add_metric(&mut single.metrics, stage, &metric);
                }
                State::Done
            }
            Some(Step::Run(key)) => {
                let failed = event::Failed::read(&store.work(*key));
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

/// By name; where two stages or splits have one of the same name, the later ones with what distinguishes them.
fn add_metric(metrics: &mut BTreeMap<String, f64>, stage: &str, metric: &Metric) {
    let names = [
        metric.name.clone(),
        format!("{}.{}", metric.split, metric.name),
        format!("{}.{}.{}", stage.replace('/', "."), metric.split, metric.name),
    ];
    if let Some(free) = names.into_iter().find(|name| !metrics.contains_key(name)) {
        metrics.insert(free, metric.value);
    }
}

fn failure(graph: &Graph, id: Id, failed: event::Failed) -> Failure {
    let stage = graph.stage(id).name.clone();
    let again = name::command(graph, [&stage]);
    Failure { stage, error: failed.error, again }
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
        metrics: metrics.into_iter().map(|(name, values)| (name, over_seeds(&values))).collect(),
        keys: group.iter().map(|single| single.keys.clone()).collect(),
        alone: name::command(graph, &last),
        failures: group.iter().flat_map(|single| single.failures.clone()).collect(),
    }
}

fn over_seeds(values: &[f64]) -> OverSeeds {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.len() > 1).then(|| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    OverSeeds { mean, sd, seeds: values.len() }
}

/// Rows for which the expression holds; one without a value yet for a metric named in it is left out.
fn filtered(rows: Vec<Row>, text: &str, axes: &[String], metrics: &[String]) -> Result<Vec<Row>> {
    let names: Vec<&str> = axes.iter().chain(metrics).map(String::as_str).collect();
    let filter = Filter::read(text, &names).map_err(name::plain)?;
    let mut kept = vec![];
    for row in rows {
        let means: Vec<(&str, String)> =
            row.metrics.iter().map(|(name, metric)| (name.as_str(), number::plain(metric.mean))).collect();
        let values = row.axes.iter().map(|(a, b)| (a.as_str(), b.as_str()));
        let values = values.chain(means.iter().map(|(a, b)| (*a, b.as_str())));
        let known: HashSet<&str> = values.clone().map(|(name, _)| name).collect();
        if filter.names().all(|name| known.contains(name)) && filter.keeps(values).map_err(name::plain)? {
            kept.push(row);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_one_name_are_distinguished_by_split_and_stage() {
        let mut metrics = BTreeMap::new();
        for (stage, split) in [("a", "val"), ("a", "test"), ("b/c", "test")] {
            add_metric(&mut metrics, stage, &Metric::new("top1", split, 0.5));
        }
        assert_eq!(metrics.keys().collect::<Vec<_>>(), ["b.c.test.top1", "test.top1", "top1"]);
    }

    #[test]
    fn seeds_have_a_mean_and_a_deviation() {
        let found = over_seeds(&[1.0, 2.0, 3.0]);
        assert_eq!((found.mean, found.sd, found.seeds), (2.0, Some(1.0), 3));
        assert_eq!(over_seeds(&[1.0]).sd, None);
    }
}
