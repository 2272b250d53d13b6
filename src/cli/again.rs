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
use caco_provenance::{
    locate::Located,
    rerun::{Rerun, Verdict},
};
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
    /// Where a training and its rerun first differ, with `--locate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    located: Option<Located>,
    /// The signed test result.
    attestation: PathBuf,
    /// The command that runs the stage once more, with digests of its steps.
    #[serde(skip)]
    with_digests: String,
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
        let line = line.replacen("{}", &self.stage, 1);
        let located = self.located.as_ref().map_or(String::new(), |located| self.located(located));
        format!("{line}\n{located}  signed test result: {}\n", self.attestation.display())
    }

    /// Where the two first differ, in words.
    fn located(&self, located: &Located) -> String {
        match located {
            Located::Step { step, tensor, first, second, differing, of } => format!(
                "  the first difference is in step {step}: {tensor} was {first}, now {second}; {differing} of {of} tensors \
                 differ there\n"
            ),
            Located::Nowhere { steps } if self.verdict == Verdict::Identical => {
                format!("  the digests of all {steps} steps are the same too\n")
            }
            Located::Nowhere { steps } => {
                format!(
                    "  the digests of all {steps} steps are the same: what differs is computed after the last one\n"
                )
            }
            Located::NoDigests => format!(
                "  the first result kept no digests of its steps, so where they first differ is unknown; to keep them:\n  {}\n",
                self.with_digests
            ),
        }
    }
}

/// A folder that goes away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs each of these stages again on what the store holds of their inputs. With `locate`, finds where trainings first differ.
pub fn stages(graph: &mut Graph, ids: &[Id], store: &Store, device: Device, locate: bool) -> Result<Vec<Again>> {
    let signals = Arc::new(Signals::default());
    on_signals(&signals)?;
    for id in ids {
        graph.pipeline.stages[*id as usize].policy.step_digests = locate;
    }
    ids.iter().map(|id| stage(graph, *id, store, device, locate, &signals)).collect()
}

/// Only trainings have steps, in which they can differ.
pub fn refuse_others(graph: &Graph, ids: &[Id]) -> Result<()> {
    let is_training = |id: &&Id| REGISTRY.find(graph.stage(**id).kind).is_some_and(|kind| kind.training);
    let Some(other) = ids.iter().find(|id| !is_training(id)) else { return Ok(()) };
    let trainings = graph.with_sources(&[*other]);
    let help = match trainings.iter().rfind(is_training) {
        Some(training) => format!("; name a training that it reads from, such as '{}'", graph.stage(*training).name),
        None => String::new(),
    };
    let other = graph.stage(*other);
    bail!("--locate: stage '{}' of kind '{}' is no training, so it has no steps{help}", other.name, other.kind)
}

fn stage(graph: &Graph, id: Id, store: &Store, device: Device, locate: bool, signals: &Signals) -> Result<Again> {
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
    let located = locate.then(|| rerun.locate()).transpose()?;
    let with_digests = format!(
        "{} --force '{name}' --set '{name}.run=(step_digests: true)'",
        caco_inspect::name::command(graph, [name])
    );
    let attestation = rerun.attest(&verdict, name, &signer()?)?;
    rerun.keep(&verdict)?;
    let shown =
        std::env::current_dir().ok().and_then(|here| attestation.strip_prefix(here).ok().map(Path::to_path_buf));
    let attestation = shown.unwrap_or(attestation);
    Ok(Again { stage: name.clone(), verdict, located, attestation, with_digests })
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
