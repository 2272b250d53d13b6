//! What a run would do, stage by stage.

use super::{
    state::{Planned, State},
    why,
};
use anyhow::Result;
use caco_engine::{
    graph::{Graph, Id},
    names::Names,
    plan,
    store::Store,
};
use std::collections::HashSet;

/// Every stage of a plan, in the order in which they would run. `forced` run although their results are there.
///
/// # Errors
/// Where the store cannot be read.
pub fn plan(
    graph: &Graph,
    store: &Store,
    names: &Names,
    plan: &plan::Plan,
    forced: &HashSet<Id>,
) -> Result<Vec<Planned>> {
    plan.steps
        .iter()
        .map(|(id, step)| {
            let mut planned = Planned::of(graph, *id, step);
            if planned.state == State::Run {
                planned.why = Some(why::reasons(graph, store, names, plan, *id, forced.contains(id))?);
            }
            Ok(planned)
        })
        .collect()
}
