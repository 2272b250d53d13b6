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

/// Records are read of no more stages than this; the rest counts like their mean.
const READ: usize = 1000;

#[derive(Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    bytes: f64,
}

impl Estimate {
    /// The estimate for a plan.
    pub fn of(graph: &Graph, store: &Store, names: &Names, plan: &Plan) -> store::Result<Estimate> {
        let runs: Vec<Id> = plan
            .steps
            .iter()
            .filter(|(_, step)| matches!(step, Step::Run(_) | Step::MayRun))
            .map(|(id, _)| *id)
            .collect();
        let mut known: Vec<(Id, Cost)> = vec![];
        for id in runs.iter().take(READ) {
            if let Some(cost) = last(store, names, &graph.stage(*id).name)? {
                known.push((*id, cost));
            }
        }
        let mut kinds: HashMap<&str, Vec<Cost>> = HashMap::new();
        known.iter().for_each(|(id, cost)| kinds.entry(graph.stage(*id).kind).or_default().push(*cost));
        let known: HashMap<Id, Cost> = known.into_iter().collect();
        let mut estimate = Estimate { stages: runs.len(), ..Estimate::default() };
        let mut bytes = 0.0;
        for id in runs {
            let like_it = || kinds.get(graph.stage(id).kind).map(|costs| mean(costs));
            match known.get(&id).copied().or_else(like_it) {
                Some(cost) => {
                    estimate.seconds += cost.seconds;
                    bytes += cost.bytes;
                }
                None => estimate.unknown += 1,
            }
        }
        estimate.bytes = bytes as u64;
        Ok(estimate)
    }

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

fn mean(costs: &[Cost]) -> Cost {
    let n = costs.len() as f64;
    Cost {
        seconds: costs.iter().map(|c| c.seconds).sum::<f64>() / n,
        bytes: costs.iter().map(|c| c.bytes).sum::<f64>() / n,
    }
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
