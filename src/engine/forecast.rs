//! Forecasts the time left of a run. A lower bound that a run on an otherwise idle machine comes close to: the
//! remaining stages cannot use more than the whole machine, and none starts before all that it reads from is done.

use super::graph::{Graph, Id};
use std::{collections::HashMap, time::Duration};

/// The time left of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Left {
    /// Nothing is known of any stage that is left.
    Unknown,
    /// The time of the known stages, where others are unknown.
    AtLeast(Duration),
    /// Based on earlier times of every remaining stage.
    About(Duration),
}

/// A stage that is not done.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// How much longer it takes. `None` if unknown.
    pub left: Option<Duration>,
    /// The share of the machine that it takes, from 0 to 1.
    pub share: f64,
}

/// The time left until these stages are done. They must be in topological order.
pub fn left(graph: &Graph, stages: &[(Id, Open)]) -> Left {
    let mut work = 0.0;
    let mut unknown = 0;
    let mut longest = 0.0_f64;
    let mut path: HashMap<Id, f64> = HashMap::with_capacity(stages.len());
    for (id, open) in stages.iter().rev() {
        let seconds = open.left.map_or(0.0, |left| left.as_secs_f64());
        unknown += usize::from(open.left.is_none());
        work += seconds * open.share;
        let behind = graph.readers(*id).iter().filter_map(|reader| path.get(reader)).fold(0.0, |a: f64, b| a.max(*b));
        path.insert(*id, seconds + behind);
        longest = longest.max(seconds + behind);
    }
    let time = Duration::from_secs_f64(longest.max(work));
    match unknown {
        0 => Left::About(time),
        n if n == stages.len() => Left::Unknown,
        _ => Left::AtLeast(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_pipeline::kind::Registry;
    use caco_pipeline::pipeline::{Overlay, Pipeline};
    use std::path::Path;

    /// `b` reads from `a`; `c` and `d` are independent.
    fn graph() -> Graph {
        let text = r#"(stages: {
            "a": command(shell: "a", outputs: ["o"]),
            "b": command(shell: "b", inputs: {"i": Stage("a")}, outputs: ["o"]),
            "c": command(shell: "c", outputs: ["o"]),
            "d": command(shell: "d", outputs: ["o"]),
        })"#;
        Graph::new(Pipeline::parse(Path::new("p.ron"), text.into(), &Overlay::default(), Registry::commands()).unwrap())
            .unwrap()
    }

    fn forecast(seconds: [Option<u64>; 4], share: f64) -> Left {
        let graph = graph();
        let open = |(name, left): (&str, Option<u64>)| {
            (graph.find(name).unwrap(), Open { left: left.map(Duration::from_secs), share })
        };
        left(&graph, &["a", "b", "c", "d"].into_iter().zip(seconds).map(open).collect::<Vec<_>>())
    }

    fn about(seconds: u64) -> Left {
        Left::About(Duration::from_secs(seconds))
    }

    #[test]
    fn the_machine_bounds_it_or_the_longest_path() {
        assert_eq!(forecast([Some(10); 4], 1.0), about(40), "one at a time");
        assert_eq!(forecast([Some(10); 4], 0.5), about(20), "two at a time");
        assert_eq!(forecast([Some(10); 4], 0.125), about(20), "b waits for a");
        assert_eq!(forecast([Some(1), Some(1), Some(90), Some(1)], 0.125), about(90));
    }

    #[test]
    fn it_says_what_is_not_known() {
        assert_eq!(forecast([None; 4], 1.0), Left::Unknown);
        assert_eq!(forecast([Some(5), None, None, Some(6)], 1.0), Left::AtLeast(Duration::from_secs(11)));
    }
}
