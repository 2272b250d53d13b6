//! How long a run will take and how much it will write, by what the same stages took before.

use super::{
    graph::{Graph, Id},
    names::Names,
    plan::{Plan, Step},
    store::{self, Published, Store},
};
use std::{collections::HashMap, time::Duration};

/// What the stages that run, or may run, took when they ran last. An upper bound where some of them may not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Stages that run or may run.
    pub stages: usize,
    /// Of these, stages of which nothing is known, not even of another of their kind.
    pub unknown: usize,
    /// Time of all stages one after the other, seconds.
    pub seconds: f64,
    /// Bytes of their outputs.
    pub bytes: u64,
}

/// What each stage that runs, or may run, took when it ran last.
#[derive(Debug, Default)]
pub struct Costs {
    runs: Vec<Id>,
    known: HashMap<Id, Cost>,
    kinds: HashMap<&'static str, Kind>,
}

/// Records are read of no more stages than this; the rest counts like their mean.
const READ: usize = 1000;

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    seconds: f64,
    bytes: f64,
}

/// All that is known of the stages of one kind, added up.
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
    /// The costs of a plan's stages, by their records.
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

    /// What a stage took when it ran last, or what those of its kind take. None: nothing is known of either.
    pub fn time(&self, graph: &Graph, id: Id) -> Option<Duration> {
        self.cost(graph, id).map(|cost| Duration::from_secs_f64(cost.seconds))
    }

    /// Learns from a stage that has just run what others of its kind will take.
    pub fn learn(&mut self, graph: &Graph, id: Id, took: Duration) {
        let cost = Cost { seconds: took.as_secs_f64(), bytes: 0.0 };
        self.kinds.entry(graph.stage(id).kind).or_default().add(cost);
    }

    /// All of them added up.
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
