//! `caco audit --rerun`: a stage once more, in a store of its own.

use super::{
    device::Device,
    display::{Display, Style},
    programs::Here,
    run::{attester, folders, memory_mib, on_signals, signer, silence},
};
use crate::registry::REGISTRY;
use anyhow::{Context, Result, bail};
use caco_engine::{
    estimate::Costs,
    exec::{Executor, Launch, Local},
    graph::{Graph, Id},
    names::Names,
    plan::Plan,
    pool::{self, Pool},
    run::{Options, Prepared, Programs, Runner, request},
    signals::Signals,
    store::{Published, Store},
};
use caco_pipeline::pipeline::Stage;
use caco_provenance::rerun::{Rerun, Verdict};
use serde::Serialize;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A stage that was run again.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Again {
    stage: String,
    #[serde(flatten)]
    verdict: Verdict,
    /// The signed test result.
    attestation: PathBuf,
}

impl Again {
    /// Whether it came out as it should.
    pub fn passes(&self) -> bool {
        !matches!(self.verdict, Verdict::Differs { .. })
    }

    /// In words.
    pub fn text(&self) -> String {
        let line = match &self.verdict {
            Verdict::Identical => "✓ {}: run again, identical bytes".to_string(),
            Verdict::Within { classes, outputs } => format!(
                "△ {{}}: run again under another determinism class, {} within the declared tolerance\n  {classes}",
                outputs.join(", ")
            ),
            Verdict::Differs { faults } => format!("✗ {{}}: run again, {}", faults.join("; ")),
        };
        format!("{}\n  signed test result: {}\n", line.replacen("{}", &self.stage, 1), self.attestation.display())
    }
}

/// A folder that goes away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs each of these stages again on what the store holds of their inputs.
pub fn stages(graph: &Graph, ids: &[Id], store: &Store, device: Device) -> Result<Vec<Again>> {
    let signals = Arc::new(Signals::default());
    on_signals(&signals)?;
    ids.iter().map(|id| stage(graph, *id, store, device, &signals)).collect()
}

fn stage(graph: &Graph, id: Id, store: &Store, device: Device, signals: &Signals) -> Result<Again> {
    let name = &graph.stage(id).name;
    let ids = graph.with_sources(&[id]);
    let there = Plan::new(graph, &ids, store, &HashSet::new())?;
    let hits: Vec<(Id, Published)> = there.hits().map(|(id, published)| (id, published.clone())).collect();
    let first = hits.iter().find(|(other, _)| *other == id).map(|(_, published)| published);
    let first = first.with_context(|| {
        format!("stage '{name}' has no result to compare with, or the bytes of what it reads were collected")
    })?;
    let folder = store.root().join("work").join(format!("rerun-{}", std::process::id()));
    let _gone_in_the_end = Scratch(folder.clone());
    let scratch = Store::open(&folder)?;
    let sources: Vec<_> = hits.iter().filter(|(other, _)| *other != id).map(|(_, published)| published.key).collect();
    store.copy_to(&scratch, &sources)?;
    let second = run(graph, &ids, id, &scratch, device, threads(store, first), signals)?;
    let kind = REGISTRY.find(graph.stage(id).kind).context("a stage is of a known kind")?;
    let tolerance = kind.tolerance;
    let rerun = Rerun { store, first, scratch: &scratch, second: &second, tolerance };
    let verdict = rerun.verdict()?;
    let attestation = rerun.attest(&verdict, name, &signer()?)?;
    rerun.keep(&verdict)?;
    let shown =
        std::env::current_dir().ok().and_then(|here| attestation.strip_prefix(here).ok().map(Path::to_path_buf));
    Ok(Again { stage: name.clone(), verdict, attestation: shown.unwrap_or(attestation) })
}

/// Programs of which one runs at a time: it takes all cores, and whichever GPUs are free.
struct Alone(Here);

impl Programs for Alone {
    fn launch(&self, prepared: &Prepared) -> Result<Launch> {
        self.0.launch(prepared)
    }

    fn resources(&self, stage: &Stage, pool: &Pool) -> pool::Usual {
        let usual = self.0.resources(stage, pool);
        pool::Usual { cpus: if stage.is_command { usual.cpus } else { pool.cpus }, ..usual }
    }
}

/// The threads that the first result was made with: other ones would be another determinism class.
fn threads(store: &Store, first: &Published) -> Option<u32> {
    store.record(first).ok()??["threads"].as_u64()?.try_into().ok()
}

fn run(
    graph: &Graph,
    ids: &[Id],
    id: Id,
    scratch: &Store,
    device: Device,
    threads: Option<u32>,
    signals: &Signals,
) -> Result<Published> {
    let forced = HashSet::from([id]);
    let plan = Plan::checked(graph, ids, scratch, &forced)?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let cpus = threads.unwrap_or(cores).clamp(1, cores);
    let executor = Local::new(Pool { cpus, gpus: device.gpus(None)?, memory_mib: memory_mib() });
    let options = Options { keep_going: false, max_time: None, silence: silence()? };
    let programs = Alone(Here::new(device, &graph.pipeline.root, folders(graph, scratch)));
    let costs = Costs::of(graph, scratch, &Names::load(scratch, &graph.pipeline.name), &plan)?;
    let share = |id| executor.pool().share(request(graph.stage(id), &programs, &executor));
    let mut display = Display::new(graph, costs, share, Style { quiet: false, keep_going: false });
    let attester = attester(graph)?;
    let runner = Runner::new(graph, scratch, plan, &programs, &executor, options, signals);
    let outcome = runner.forcing(forced).attested(&attester).run(&mut |event| display.event(&event))?;
    drop(display);
    match (outcome.results.get(&id), outcome.failed.first()) {
        (Some(published), _) => Ok(published.clone()),
        (None, Some(failure)) => {
            bail!("stage '{}' failed when it was run again: {}", graph.stage(id).name, failure.why)
        }
        (None, None) => bail!("stage '{}' was stopped", graph.stage(id).name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::programs::tests::{here, pool, stage};

    #[test]
    fn a_stage_alone_takes_all_cores_and_any_of_the_gpus() {
        // Another run may hold the first: the pool has all of them, of which a stage claims those that are free.
        let pool = pool();
        let taken = |gpus| {
            let pool::Usual { cpus, gpus } = Alone(here("cuda")).resources(&stage(gpus), &pool);
            (cpus, gpus)
        };
        assert_eq!([taken(None), taken(Some(0)), taken(Some(2))], [(8, 1), (8, 0), (8, 2)]);
    }
}
