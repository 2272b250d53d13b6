//! Estimates how long a run will take and how much it will write, from earlier runs of the same stages.

use super::{
    graph::{Graph, Id},
    names::Names,
    plan::{Plan, Step},
    store::{self, Published, Store},
};
use std::{collections::HashMap, time::Duration};

/// The estimated cost of all stages that run or may run. An upper bound if some of them may not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Stages that run or may run.
    pub stages: usize,
    /// Of these, stages without a record of themselves or of another stage of their kind.
    pub unknown: usize,
    /// The time of all stages run one after the other, in seconds.
    pub seconds: f64,
    /// The size of their outputs, in bytes.
    pub bytes: u64,
}

/// The last known cost of each stage that runs or may run.
#[derive(Debug, Default)]
pub struct Costs {
    runs: Vec<Id>,
    known: HashMap<Id, Cost>,
    kinds: HashMap<&'static str, Kind>,
}

/// The maximum number of stages whose records are read. The others count as the mean of these.
const READ: usize = 1000;

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    seconds: f64,
    bytes: f64,
}

/// The summed costs of the known stages of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    sum: Cost,
    stages: usize,
}

impl Kind {
    fn add(&mut self, cost: Cost) {
        self.sum.seconds += cost.seconds;
        self.sum.bytes += cost.bytes;
        self.stages += 1;
    }

    fn mean(&self) -> Cost {
        let n = self.stages as f64;
        Cost { seconds: self.sum.seconds / n, bytes: self.sum.bytes / n }
    }
}

impl Costs {
    /// Reads the costs of a plan's stages from their records.
    pub fn of(graph: &Graph, store: &Store, names: &Names, plan: &Plan) -> store::Result<Costs> {
        let runs = plan.steps.iter().filter(|(_, step)| matches!(step, Step::Run(_) | Step::MayRun));
        let mut costs = Costs { runs: runs.map(|(id, _)| *id).collect(), ..Costs::default() };
        for id in costs.runs.iter().take(READ) {
            let stage = graph.stage(*id);
            if let Some(cost) = last(store, names, &stage.name)? {
                costs.known.insert(*id, cost);
                costs.kinds.entry(stage.kind).or_default().add(cost);
            }
        }
        Ok(costs)
    }

    /// The stages that run or may run, in order.
    pub fn runs(&self) -> &[Id] {
        &self.runs
    }

    /// How long a stage took in its last run, or else the mean of its kind. `None` if neither is known.
    pub fn time(&self, graph: &Graph, id: Id) -> Option<Duration> {
        self.cost(graph, id).map(|cost| Duration::from_secs_f64(cost.seconds))
    }

    /// Adds the time of a stage that has just run to the mean of its kind.
    pub fn learn(&mut self, graph: &Graph, id: Id, took: Duration) {
        let cost = Cost { seconds: took.as_secs_f64(), bytes: 0.0 };
        self.kinds.entry(graph.stage(id).kind).or_default().add(cost);
    }

    /// The sum over all stages.
    pub fn estimate(&self, graph: &Graph) -> Estimate {
        let mut estimate = Estimate { stages: self.runs.len(), ..Estimate::default() };
        let mut bytes = 0.0;
        for cost in self.runs.iter().map(|id| self.cost(graph, *id)) {
            match cost {
                Some(cost) => {
                    estimate.seconds += cost.seconds;
                    bytes += cost.bytes;
                }
                None => estimate.unknown += 1,
            }
        }
        estimate.bytes = bytes as u64;
        estimate
    }

    fn cost(&self, graph: &Graph, id: Id) -> Option<Cost> {
        self.known.get(&id).copied().or_else(|| self.kinds.get(graph.stage(id).kind).map(Kind::mean))
    }
}

impl Estimate {
    /// The time, if anything is known of any stage.
    pub fn time(&self) -> Option<Duration> {
        (self.unknown < self.stages).then(|| Duration::from_secs_f64(self.seconds))
    }
}

fn last(store: &Store, names: &Names, stage: &str) -> store::Result<Option<Cost>> {
    let Some(published) = names.get(stage).map(|key| store.lookup(key)).transpose()?.flatten() else { return Ok(None) };
    let record = store.record(&published)?.unwrap_or_default();
    let seconds = record["seconds"].as_f64();
    Ok(seconds.map(|seconds| Cost { seconds, bytes: size(&published) }))
}

fn size(published: &Published) -> f64 {
    published.outputs.iter().map(|o| o.size).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_known_gives_no_time() {
        assert_eq!(Estimate { stages: 3, unknown: 3, ..Estimate::default() }.time(), None);
        assert!(Estimate { stages: 3, unknown: 2, seconds: 1.0, bytes: 0 }.time().is_some());
    }
}
