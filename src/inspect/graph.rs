//! The stages of a pipeline and what reads from what.

use caco_engine::graph::{self, Id, Origin};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

/// A graph of stages.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Graph {
    /// The stages, each after those that it reads from.
    pub stages: Vec<Node>,
    /// Pairs of stages: the second reads an output of the first.
    pub edges: Vec<(String, String)>,
}

/// A stage.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Node {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
}

/// These stages of a pipeline. Inputs that are only located, not hashed, are left out.
pub fn graph(graph: &graph::Graph, ids: &[Id]) -> Graph {
    let name = |id: Id| graph.stage(id).name.clone();
    let mut edges = BTreeSet::new();
    for id in ids {
        for edge in graph.edges(*id).iter().filter(|edge| edge.hashed) {
            if let Origin::Output(of, _) = edge.from {
                edges.insert((of, *id));
            }
        }
    }
    Graph {
        stages: ids.iter().map(|id| Node { stage: name(*id), kind: graph.stage(*id).kind.into() }).collect(),
        edges: edges.into_iter().map(|(from, to)| (name(from), name(to))).collect(),
    }
}
