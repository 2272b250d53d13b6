//! `caco run`

use super::{
    FAILED, PipelineArgs, Project, check,
    device::Device,
    display::{Display, Style, bytes},
    expectations, open, plan, print_json, print_marked,
    programs::Here,
};
use anyhow::{Context, Result, bail};
use caco_engine::{
    disk::Space,
    estimate::{Costs, Estimate},
    event::{Failure, Outcome},
    exec::{Executor, Local},
    gpu::Gpu,
    graph::{Graph, Id},
    history::{Journal, Request},
    key::Key,
    names::Names,
    plan::{Plan, Step},
    pool::Pool,
    printable::{printable, tail},
    run::{Options, Runner, request as request_of},
    signals::Signals,
    store::{self, Store},
    warning,
};
use caco_inspect::{
    expectation::{self, Expectation, Verdict},
    name, outcome,
};
use caco_pipeline::job;
use caco_provenance::{
    attester::Attester,
    keyring::{Keyring, Signer},
};
use clap::Args;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco run tiny                       # pipelines/tiny.ron\n  caco run tiny 'linear/*'            # some stages, with all that they need\n  caco run tiny --set pretrain/short.seed=1\n  caco run tiny --keep-going --max-time 60"
)]
pub struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages or patterns (`linear/*`) [default: the pipeline's targets]
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Run what these stages need, not the stages themselves
    #[arg(long)]
    upstream: bool,
    /// Run what reads from these stages as well
    #[arg(long)]
    downstream: bool,
    /// Run this stage although its result is in the store
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Print what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Continue with stages that do not depend on a failed one
    #[arg(short, long)]
    keep_going: bool,
    /// CPU cores to use [default: all]
    #[arg(short, long, value_name = "N")]
    jobs: Option<u32>,
    /// GPUs to use, as CUDA_VISIBLE_DEVICES names them [default: all that it allows]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    gpus: Option<Vec<Gpu>>,
    /// The device for tensors: auto, cpu, cuda, cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Stop at a checkpoint after this many minutes, with exit code 75
    #[arg(long, value_name = "MINUTES")]
    max_time: Option<f64>,
    /// Fail unless every table with an `expect` is the published one
    #[arg(long)]
    expect: bool,
    /// Print only failures and the outcome
    #[arg(short, long)]
    quiet: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &RunArgs, project: &Project) -> Result<ExitCode> {
    let begun = Instant::now();
    let (graph, store) = open::both(&args.pipeline, project)?;
    let ids = wanted(args, &graph)?;
    expectation::check(&graph)?;
    if args.expect && !ids.iter().any(|id| graph.stage(*id).expected.is_some()) {
        bail!("--expect: none of these stages has an `expect`; `caco explain compare` describes it");
    }
    let forced: HashSet<Id> =
        if args.force.is_empty() { HashSet::new() } else { name::select(&graph, &args.force)?.into_iter().collect() };
    if args.dry_run {
        let plan = Plan::new(&graph, &ids, &store, &forced)?;
        let names = Names::load(&store, &graph.pipeline.name);
        return plan::show(&graph, &store, &names, &plan, &forced, args.json);
    }
    let (plan, names) =
        rayon::join(|| Plan::checked(&graph, &ids, &store, &forced), || Names::load(&store, &graph.pipeline.name));
    let plan = plan?;
    open::remember(&graph.pipeline, &store);
    if let Some(code) = refuse_blocked(&graph, &plan, project, args.keep_going) {
        return Ok(code);
    }
    if !args.quiet {
        check::print_warnings(&graph, &warning::all(&graph, &to_run(&plan)));
    }
    let options = options(args)?;
    let signals = Arc::new(Signals::default());
    on_signals(&signals)?;
    let mut journal = Journal::begin(&store, request(args, &graph));
    let mut results: Vec<_> = plan.hits().map(|(id, published)| (id, published.key)).collect();
    let outcome = if plan.is_done() {
        let hits = plan.steps.len();
        std::mem::forget(plan);
        Outcome { hits, ..Outcome::default() }
    } else {
        let attester = attester(&graph)?;
        let programs = Here::new(args.device, &graph.pipeline.root, folders(&graph, &store));
        let executor = Local::new(pool(args)?);
        to_run(&plan).iter().try_for_each(|id| programs.ensure_gpus(graph.stage(*id), executor.pool()))?;
        let done = Costs::of(&graph, &store, &names, &plan).and_then(|costs| {
            print_estimate(&store, &costs.estimate(&graph), args.quiet);
            let share = |id| executor.pool().share(request_of(graph.stage(id), &programs, &executor));
            let style = Style { quiet: args.quiet, keep_going: args.keep_going };
            let mut display = Display::new(&graph, costs, share, style);
            let runner = Runner::new(&graph, &store, plan, &programs, &executor, options, &signals);
            runner.forcing(forced).attested(&attester).run(&mut |event| {
                journal.event(&graph, &event);
                display.event(&event);
            })
        });
        match done {
            Ok(outcome) => outcome,
            Err(error) => {
                journal.break_off(&error, begun.elapsed());
                return Err(error.into());
            }
        }
    };
    results.extend(outcome.results.iter().map(|(id, published)| (*id, published.key)));
    journal.end(&outcome, &hits(&outcome, &results), begun.elapsed());
    // Another run may have noted its own since this one began.
    let names = if outcome.ran.is_empty() { names } else { Names::load(&store, &graph.pipeline.name) };
    match note_names(&graph, &store, names, &results) {
        // In a store of another user. Only `why` would read them.
        Err(error) if outcome.ran.is_empty() && error.is_refused() => {}
        noted => noted?,
    }
    store.save_accelerators();
    let done = conclude(args, &graph, &store, &outcome, begun.elapsed(), expectations(&graph, &ids, &store, &results)?);
    // The process ends here; freeing a hundred thousand stages first would only take time.
    std::mem::forget(graph);
    done
}

/// Signs for what a run makes.
pub(super) fn attester(graph: &Graph) -> Result<Attester> {
    let signer = signer()?;
    Ok(Attester::new(signer, Keyring::locate()?.trust_in()?, &graph.pipeline))
}

/// The key that signs results. Prints a line where it had to make the first one.
pub(super) fn signer() -> Result<Signer> {
    let ring = Keyring::locate()?;
    let (signer, made) = ring.signer_or_new()?;
    if made {
        say!("made a key that signs results: {} ({})", &signer.id()[..16], ring.folder().display());
    }
    Ok(signer)
}

/// Before a run: how long by earlier runs, and whether the disk has room.
fn print_estimate(store: &Store, estimate: &Estimate, quiet: bool) {
    let Some(time) = estimate.time() else { return };
    let free = Space::of(store.root()).map(|left| left.bytes);
    if !quiet {
        let unknown = match estimate.unknown {
            0 => String::new(),
            n => format!("; {n} never ran before"),
        };
        let (stages, s) = (estimate.stages, if estimate.stages == 1 { "" } else { "s" });
        say!(
            "{stages} stage{s} to run at most: {} and {} by earlier runs{unknown}",
            super::display::duration(time),
            bytes(estimate.bytes)
        );
    }
    if free.is_some_and(|free| free < estimate.bytes) {
        say!(
            "warning: {} has {} free; `caco cache gc` shows what can go",
            store.root().display(),
            bytes(free.unwrap_or_default())
        );
    }
}

/// What the caller asks for, for the history.
fn request(args: &RunArgs, graph: &Graph) -> Request {
    Request {
        pipeline: graph.pipeline.name.clone(),
        file: graph.pipeline.file(),
        profile: args.pipeline.overlay.profile.clone(),
        set: args.pipeline.overlay.set.clone(),
        targets: args.stages.clone(),
    }
}

/// The keys of the stages that did not need to run.
fn hits(outcome: &Outcome, results: &[(Id, Key)]) -> Vec<Key> {
    let ran: HashSet<Id> = outcome.ran.iter().map(|(id, ..)| *id).collect();
    let mut seen = HashSet::with_capacity(results.len());
    results.iter().filter(|(id, _)| !ran.contains(id) && seen.insert(*id)).map(|(_, key)| *key).collect()
}

fn wanted(args: &RunArgs, graph: &Graph) -> Result<Vec<Id>> {
    let mut ids = name::select(graph, &args.stages)?;
    if args.downstream {
        ids = graph.with_readers(&ids);
    }
    if !args.upstream {
        return Ok(graph.with_sources(&ids));
    }
    let above: HashSet<Id> = graph.with_sources(&ids).into_iter().filter(|id| !ids.contains(id)).collect();
    let ids: Vec<Id> = graph.order().iter().copied().filter(|id| above.contains(id)).collect();
    Ok(graph.with_sources(&ids))
}

/// The stages that a run starts, or may start.
fn to_run(plan: &Plan) -> Vec<Id> {
    let runs = plan.steps.iter().filter(|(_, step)| matches!(step, Step::Run(_) | Step::MayRun));
    runs.map(|(id, _)| *id).collect()
}

fn options(args: &RunArgs) -> Result<Options> {
    Ok(Options {
        keep_going: args.keep_going,
        max_time: args.max_time.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
        silence: silence()?,
    })
}

/// What this machine has for the stages, as far as the caller leaves it to them.
fn pool(args: &RunArgs) -> Result<Pool> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    Ok(Pool {
        cpus: args.jobs.unwrap_or(cores).max(1),
        gpus: args.device.gpus(args.gpus.as_deref())?,
        memory_mib: memory_mib(),
    })
}

/// How long a worker may be without a sign of life: longer than a stalled step takes to be noticed, and than a store on a
/// network is away for a moment.
pub(super) fn silence() -> Result<Duration> {
    Ok(job::least_stall()? * 5)
}

/// The folders that hold the project: its own, the pipeline file's, and the store.
pub(super) fn folders(graph: &Graph, store: &Store) -> Vec<PathBuf> {
    let beside = graph.pipeline.file().parent().map(Path::to_path_buf);
    [graph.pipeline.root.clone()].into_iter().chain(beside).chain([store.root().to_path_buf()]).collect()
}

/// The machine's memory, MiB. If it is unknown, no stage waits for memory.
pub(super) fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::MAX >> 1, |kib| kib >> 10)
}

pub(super) fn on_signals(signals: &Arc<Signals>) -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let signals = signals.clone();
        // SAFETY: the handler stores two atomics.
        unsafe { signal_hook::low_level::register(signal, move || signals.note(signal)) }
            .context("cannot catch signals")?;
    }
    Ok(())
}

/// Missing inputs stop a run before it starts, unless the caller asked to keep going.
fn refuse_blocked(graph: &Graph, plan: &Plan, project: &Project, keep_going: bool) -> Option<ExitCode> {
    let blocked: Vec<_> = plan.steps.iter().filter(|(_, step)| matches!(step, Step::Blocked(_))).collect();
    for (id, step) in &blocked {
        let Step::Blocked(missing) = step else { continue };
        let stage = graph.stage(*id);
        for missing in missing {
            say!(
                "error: stage '{}' ({}): input {}: {}",
                stage.name,
                graph.pipeline.place(stage),
                missing.slot,
                missing.why
            );
        }
    }
    if blocked.is_empty() || keep_going {
        return None;
    }
    if !project.is_here() {
        let (path, root) = (graph.pipeline.path.display(), project.root().display());
        say!("note: paths in {path} start at {root}, the folder of the project; --project names another");
    }
    say!(
        "help: name the path with --set 'STAGE.FIELD=Path(\"…\")', or run the stages that do not need it with --keep-going"
    );
    Some(ExitCode::from(FAILED))
}

fn note_names(graph: &Graph, store: &Store, mut names: Names, results: &[(Id, Key)]) -> store::Result<()> {
    let changed = results.iter().filter(|(id, key)| names.set(&graph.stage(*id).name, *key)).count();
    if changed > 0 {
        names.save(store, &graph.pipeline.name)?;
    }
    Ok(())
}

/// Whether the tables of a run are the published ones.
fn expectations(graph: &Graph, ids: &[Id], store: &Store, results: &[(Id, Key)]) -> Result<Vec<Expectation>> {
    let key = |id| results.iter().find(|(of, _)| *of == id).map(|(_, key)| *key);
    expectation::all(graph, ids, store, &key)
}

fn conclude(
    args: &RunArgs,
    graph: &Graph,
    store: &Store,
    outcome: &Outcome,
    took: Duration,
    expectations: Vec<Expectation>,
) -> Result<ExitCode> {
    for failure in &outcome.failed {
        print_failure(graph, failure);
    }
    let took = super::display::duration(took);
    let (ran, hits) = (outcome.ran.len(), outcome.hits);
    let compared: Vec<String> = expectations.iter().map(expectations::text).collect();
    let as_published = expectations.iter().all(|of| of.verdict == Verdict::Equal);
    if args.json {
        print_json(&outcome::Outcome::of(graph, outcome, expectations))?;
    }
    if ran == 0 && outcome.failed.is_empty() && outcome.interrupted.is_none() && outcome.skipped.is_empty() {
        say!("nothing to do: all {hits} results are cached ({took})");
    } else {
        let rest =
            [(outcome.failed.len(), "failed"), (outcome.stopped.len(), "stopped"), (outcome.skipped.len(), "not run")];
        let rest: String = rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
        say!("{ran} stage{} run, {hits} cached{rest} ({took})", if ran == 1 { "" } else { "s" });
    }
    if let Some(signal) = outcome.interrupted.filter(|signal| *signal != 0) {
        say!("stopped; the same command resumes from the last checkpoints");
        return Ok(ExitCode::from(128 + signal as u8));
    }
    if !outcome.failed.is_empty() {
        return Ok(ExitCode::from(FAILED));
    }
    // At the end of its time, or because somebody asked the processes of a stage to stop.
    if outcome.interrupted.is_some() || !outcome.stopped.is_empty() {
        say!("stopped; the same command resumes from the last checkpoints");
        return Ok(ExitCode::from(caco_pipeline::job::STOPPED as u8));
    }
    if !outcome.skipped.is_empty() {
        return Ok(ExitCode::from(FAILED));
    }
    if !args.json {
        print_tables(args, graph, store)?;
    }
    compared.iter().for_each(|text| say!("{text}"));
    Ok(if args.expect && !as_published { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// The tables of the comparisons among what was asked for.
fn print_tables(args: &RunArgs, graph: &Graph, store: &Store) -> Result<()> {
    let names = Names::load(store, &graph.pipeline.name);
    for id in name::select(graph, &args.stages)? {
        let stage = graph.stage(id);
        let Some(key) = names.get(&stage.name).filter(|_| stage.is_comparison) else { continue };
        if let Some(output) = store.lookup(key)?.and_then(|p| p.output("json").cloned()) {
            let path = store.object(output.blake3);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            print_marked(&format!("\n{}\n", super::figures::terminal(store, key, &serde_json::from_str(&text)?)))?;
        }
    }
    Ok(())
}

fn print_failure(graph: &Graph, failure: &Failure) {
    let stage = graph.stage(failure.stage);
    say!("\nerror: stage '{}' failed: {}", stage.name, printable(&failure.why));
    let tail = tail(&failure.end_of_log(16 << 10), 15);
    if !tail.is_empty() {
        say!("  the end of its log:");
        tail.iter().for_each(|line| say!("  | {line}"));
    }
    say!("  its folder:  {}", failure.work.display());
    say!("  run it:      {}", name::command(graph, [&stage.name]));
}
