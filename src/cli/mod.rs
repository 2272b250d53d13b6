//! The command line: one file a command. Data goes to stdout, talk to stderr.

mod again;
mod audit;
mod bench;
mod cache;
mod check;
mod cite;
mod code;
mod completions;
mod croissant;
mod data;
mod diff;
mod divergences;
mod doctor;
mod embed;
mod exec_stage;
mod explain;
mod figures;
mod get;
mod graph;
mod history;
mod keys;
mod log;
mod man;
mod open;
mod plan;
mod programs;
mod ro_crate;
mod run;
#[cfg(test)]
mod schemas;
mod show;
mod sweep;
mod watch;
mod why;

use crate::display;
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Exit code of a run in which a stage failed, and of every other error.
const FAILED: u8 = 1;

/// A reproducible experiment pipeline: a content-hashed DAG of stages, written in RON, executed with caching.
#[derive(Parser)]
#[command(name = "caco", version, about, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    store: StoreArgs,
    /// Say more (-v, -vv); RUST_LOG is heeded too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Where results are kept.
#[derive(Args, Clone)]
struct StoreArgs {
    /// The store.
    #[arg(long, global = true, env = "CACO_CACHE", default_value = "cache", value_name = "DIR")]
    cache: PathBuf,
}

/// What is laid over a pipeline file.
#[derive(Args, Clone, Default)]
struct OverlayArgs {
    /// One of the file's profiles.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Override a value: STAGE.FIELD=VALUE or common.FIELD=VALUE.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

/// A pipeline file, named first.
#[derive(Args, Clone)]
struct PipelineArgs {
    /// The pipeline file; `tiny` means pipelines/tiny.ron.
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    #[command(flatten)]
    overlay: OverlayArgs,
}

/// A pipeline file, as an option: the one that was run last where it is left out.
#[derive(Args, Clone)]
struct OfPipelineArgs {
    /// The pipeline file; left out: the one that was run last.
    #[arg(short, long, env = "CACO_PIPELINE", value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overlay: OverlayArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline, or some of its stages with all they need
    Run(run::RunArgs),
    /// Tell what would run, and why
    Plan(plan::PlanArgs),
    /// Tell why a stage will run: which value changed, from what to what
    Why(why::WhyArgs),
    /// The points of a sweep: state, axes, metrics over seeds, and the best one
    Sweep(sweep::SweepArgs),
    /// Show a stage: parameters, inputs, outputs, metrics, time
    Show(show::ShowArgs),
    /// Print the log of a stage, or follow it
    Log(log::LogArgs),
    /// List the runs: when, what ran, what was there, and the time that saved
    History(history::HistoryArgs),
    /// Print the graph of stages for Graphviz or Mermaid
    Graph(graph::GraphArgs),
    /// Is this pipeline file right?
    Check(check::CheckArgs),
    /// Copy an output out of the store
    Get(get::GetArgs),
    /// Show the curves of a training, while it goes on or after
    Watch(watch::WatchArgs),
    /// Time the training step
    Bench(bench::BenchArgs),
    /// Public data sets: list, fetch and check them; a contact sheet of any images
    Data(data::DataArgs),
    /// Is the code behind each stage kind the one that code.lock acknowledges?
    Code(code::CodeArgs),
    /// What two results differ in: what was asked for, and the bytes
    Diff(diff::DiffArgs),
    /// Can results be believed? Signatures, keys, inputs, bytes and figures of all they were made from
    Audit(audit::AuditArgs),
    /// Keys that were seen with different bytes: every record, and which one stands
    Divergences(divergences::DivergencesArgs),
    /// From a figure of the table to the results, code and data it came from, as text and as a file for a paper
    Cite(cite::CiteArgs),
    /// Pack a run as an RO-Crate: results, signed statements, logs, and what led to what
    #[command(name = "crate")]
    Crate(ro_crate::CrateArgs),
    /// Describe a data set as Croissant 1.1 metadata, read off its index
    Croissant(croissant::CroissantArgs),
    /// Make, list and trust the keys that sign results
    Keys(keys::KeysArgs),
    /// Verify, collect, list, pin and copy results
    Cache(cache::CacheArgs),
    /// Explain a stage kind: every field with its type, default and meaning
    Explain(explain::ExplainArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// Write a manual page for each command
    Man(man::ManArgs),
    /// Features of the images of any folder, as safetensors or npy
    Embed(embed::EmbedArgs),
    /// Look at the toolchain, libtorch, the GPU, the disk
    Doctor(doctor::DoctorArgs),
    /// Execute the launch file of one stage, confined as it says; executors start this on other machines
    #[command(hide = true)]
    ExecStage(exec_stage::ExecStageArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == caco_engine::guard::COMMAND) {
        caco_engine::guard::watch();
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    trace(cli.verbose);
    let done = match cli.command {
        Command::Run(args) => run::main(&args, &cli.store),
        Command::Plan(args) => plan::main(&args, &cli.store),
        Command::Why(args) => why::main(&args, &cli.store),
        Command::Sweep(args) => sweep::main(&args, &cli.store),
        Command::Show(args) => show::main(&args, &cli.store),
        Command::Log(args) => log::main(&args, &cli.store),
        Command::History(args) => history::main(&args, &cli.store),
        Command::Graph(args) => graph::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Get(args) => get::main(&args, &cli.store),
        Command::Watch(args) => watch::main(&args, &cli.store),
        Command::Bench(args) => bench::main(&args),
        Command::Data(args) => data::main(&args, &cli.store),
        Command::Code(args) => code::main(&args),
        Command::Diff(args) => diff::main(&args, &cli.store),
        Command::Audit(args) => audit::main(&args, &cli.store),
        Command::Keys(args) => keys::main(&args, &cli.store),
        Command::Divergences(args) => divergences::main(&args, &cli.store),
        Command::Cite(args) => cite::main(&args, &cli.store),
        Command::Crate(args) => ro_crate::main(&args, &cli.store),
        Command::Croissant(args) => croissant::main(&args, &cli.store),
        Command::Cache(args) => cache::main(&args, &cli.store),
        Command::Explain(args) => explain::main(&args),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
        Command::Embed(args) => embed::main(&args, &cli.store),
        Command::Doctor(args) => doctor::main(&args, &cli.store),
        Command::ExecStage(args) => exec_stage::main(&args),
    };
    done.unwrap_or_else(|error| report(&error))
}

/// Tells an error; a closed pipe is no error.
fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|e| e.downcast_ref()).any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    if let Some(invalid) = error.downcast_ref::<caco_pipeline::pipeline::Invalid>() {
        for diagnostic in &invalid.errors {
            eprintln!("{}", diagnostic.render(&invalid.sources, colour()));
        }
        return ExitCode::from(FAILED);
    }
    eprintln!("error: {error:#}");
    ExitCode::from(FAILED)
}

/// Whether stderr takes colours.
fn colour() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

fn trace(verbose: u8) {
    use tracing_subscriber::{EnvFilter, fmt};
    let level = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("caco={level}")));
    fmt().with_env_filter(filter).with_writer(|| display::screen::Above).without_time().with_ansi(colour()).init();
}

/// Prints a value as JSON on stdout.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // An error of the writer's own, such as a pipe that closed, is passed on as one.
    serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints text on stdout.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
