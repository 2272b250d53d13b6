//! Warnings of a pipeline file: values that are allowed, but will hardly give what is wanted.

use super::graph::{Graph, Id, Origin};
use caco_pipeline::{diagnostic::Diagnostic, tree::Span};

/// A warning.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The stages that it is about.
    pub stages: Vec<String>,
    /// Dotted path of the field.
    pub field: String,
    /// Where the first stage has the field's value, or the stage if that is a default.
    pub at: Span,
    /// What is wrong.
    pub message: String,
    /// A better value.
    pub help: String,
}

impl Warning {
    /// For people.
    pub fn diagnostic(&self) -> Diagnostic {
        let first = &self.stages[0];
        let whose = match self.stages.len() {
            1 => format!("stage '{first}'"),
            n => format!("stage '{first}' and {} more", n - 1),
        };
        Diagnostic::warning(format!("{whose}: {}", self.message)).at(self.at).help(&self.help)
    }
}

/// The warnings of these stages.
pub fn all(graph: &Graph, ids: &[Id]) -> Vec<Warning> {
    let mut found: Vec<Warning> = vec![];
    for id in ids {
        let stage = graph.stage(*id);
        let Some(warn) = graph.pipeline.registry.find(stage.kind).and_then(|kind| kind.warn) else { continue };
        for caution in warn(stage.parameters(), &|slot| parameters(graph, *id, slot)) {
            let same = |known: &&mut Warning| {
                known.field == caution.field && known.message == caution.message && known.help == caution.help
            };
            match found.iter_mut().find(same) {
                Some(known) => known.stages.push(stage.name.clone()),
                None => found.push(Warning {
                    stages: vec![stage.name.clone()],
                    at: graph.pipeline.field_at(stage, &caution.field).unwrap_or(stage.at),
                    field: caution.field,
                    message: caution.message,
                    help: caution.help,
                }),
            }
        }
    }
    found
}

/// The parameters of the stage that an input reads from.
fn parameters(graph: &Graph, id: Id, slot: &str) -> Option<serde_json::Value> {
    let edge = graph.edges(id).iter().find(|edge| &*edge.slot == slot)?;
    let Origin::Output(of, _) = edge.from else { return None };
    serde_json::from_str(graph.stage(of).parameters()).ok()
}
