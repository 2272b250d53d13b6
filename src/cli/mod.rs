//! The command line: one file a command. Data goes to stdout, messages to stderr.

mod again;
mod audit;
mod bench;
mod cache;
mod check;
mod cite;
mod code;
mod completions;
mod data;
mod device;
mod diff;
mod divergences;
mod doctor;
mod embed;
mod exec_stage;
mod expectations;
mod explain;
mod export;
mod figures;
mod get;
mod graph;
mod history;
mod log;
mod man;
mod open;
#[cfg(test)]
mod pages;
mod plan;
mod programs;
mod project;
mod run;
mod show;
mod signer;
mod sweep;
mod watch;
mod why;

use crate::display;
use anyhow::Context;
use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use project::Project;
use std::{path::PathBuf, process::ExitCode};

/// Exit code of a run in which a stage failed, and of every other error.
const FAILED: u8 = 1;

/// Run experiments reproducibly: a content-hashed DAG of stages, written in RON, executed with caching.
#[derive(Parser)]
#[command(name = "caco", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    project: ProjectArgs,
    /// Print more of what happens (-v, -vv). The variable RUST_LOG sets it in detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Which project, and which store.
#[derive(Args, Clone)]
struct ProjectArgs {
    /// The folder that paths in pipelines start at [default: the nearest one from here upward that holds a store or pipelines]
    #[arg(long, global = true, value_name = "DIR")]
    project: Option<PathBuf>,
    /// The store that holds the results [default: cache, in the project]
    #[arg(long, global = true, env = "CACO_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Changes to a pipeline file.
#[derive(Args, Clone, Default)]
struct OverlayArgs {
    /// Apply a profile of the file.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Override a value: STAGE.FIELD=VALUE or common.FIELD=VALUE.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

/// A pipeline file, named first.
#[derive(Args, Clone)]
struct PipelineArgs {
    /// The pipeline file; `tiny` means pipelines/tiny.ron in the project, or else tiny.ron.
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    #[command(flatten)]
    overlay: OverlayArgs,
}

/// A pipeline file, as an option: the one that was run last where it is left out.
#[derive(Args, Clone)]
struct OfPipelineArgs {
    /// The pipeline file [default: the one that was run last].
    #[arg(short, long, env = "CACO_PIPELINE", hide_env_values = true, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overlay: OverlayArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline, or some of its stages with all that they need
    Run(run::RunArgs),
    /// Print which stages would run, and why
    Plan(plan::PlanArgs),
    /// Check a pipeline file for errors
    Check(check::CheckArgs),
    /// Print the log of a stage, or follow it
    Log(log::LogArgs),
    /// Draw the curves of a training, while it runs or after
    Watch(watch::WatchArgs),
    /// Show a stage: parameters, inputs, outputs, metrics, time
    Show(show::ShowArgs),
    /// Explain why a stage will run: which value changed, from what to what
    Why(why::WhyArgs),
    /// Compare two results: what was asked for, and the bytes
    Diff(diff::DiffArgs),
    /// Show the points of a sweep: state, metrics over seeds, the best one
    Sweep(sweep::SweepArgs),
    /// List runs: when, how long, what ran, the time that hits saved
    History(history::HistoryArgs),
    /// Print the graph of stages for Graphviz or Mermaid
    Graph(graph::GraphArgs),
    /// List, fetch, check and look at data sets
    Data(data::DataArgs),
    /// Compute features of the images in any folder
    Embed(embed::EmbedArgs),
    /// Copy an output out of the store
    Get(get::GetArgs),
    /// List, verify, collect, pin and copy results
    Cache(cache::CacheArgs),
    /// List keys whose results differ in their bytes
    Divergences(divergences::DivergencesArgs),
    /// Verify results: signatures, keys, inputs, bytes and metrics
    Audit(audit::AuditArgs),
    /// Trace a number of a table to the results, code and data behind it
    Cite(cite::CiteArgs),
    /// Write a run as an RO-Crate, or a data set as Croissant metadata
    Export(export::ExportArgs),
    /// Make, list and trust the keys that sign results
    Signer(signer::SignerArgs),
    /// Compare the code behind each stage kind with code.lock
    Code(code::CodeArgs),
    /// Describe a stage kind: every field with its type and default
    Explain(explain::ExplainArgs),
    /// Measure a training step, a training or the loader
    Bench(bench::BenchArgs),
    /// Check the toolchain, libtorch, the GPU and the disk
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// Write a manual page for each command
    Man(man::ManArgs),
    /// Execute the launch file of one stage, confined as it says
    #[command(hide = true)]
    ExecStage(exec_stage::ExecStageArgs),
}

/// The groups in which `--help` lists the commands.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Run", &["run", "plan", "check", "log", "watch"]),
    ("Inspect", &["show", "why", "diff", "sweep", "history", "graph"]),
    ("Data", &["data", "embed"]),
    ("Store", &["get", "cache", "divergences"]),
    ("Provenance", &["audit", "cite", "export", "signer", "code"]),
    ("Tools", &["explain", "bench", "doctor", "completions", "man"]),
];

/// Commands of earlier versions, and what they are called now.
const RENAMED: [(&str, &str); 3] =
    [("keys", "signer"), ("crate", "export ro-crate"), ("croissant", "export croissant")];

/// The command line, with its commands in groups.
fn command() -> clap::Command {
    let command = Cli::command();
    let about = |name: &&str| {
        let found = command.find_subcommand(name).and_then(clap::Command::get_about);
        format!("  {name:13} {}\n", found.map(ToString::to_string).unwrap_or_default())
    };
    let groups = GROUPS.map(|(title, names)| format!("{title}:\n{}\n", names.iter().map(about).collect::<String>()));
    let template = format!("{{about}}\n\n{{usage-heading}} {{usage}}\n\n{}Options:\n{{options}}\n", groups.concat());
    command.help_template(template)
}

/// Parses the command line. Ends the process where it is wrong, or asks for help.
fn parse() -> Cli {
    let wrong = |error: clap::Error| -> ! {
        if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
            && let Some((old, new)) = RENAMED.iter().find(|(old, _)| old == name)
            && is_command(name)
        {
            say!("error: 'caco {old}' is now 'caco {new}'\nhelp: caco {new} --help");
            std::process::exit(2);
        }
        error.exit()
    };
    let matches = command().try_get_matches().unwrap_or_else(|error| wrong(error));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| wrong(error))
}

/// Whether a word of the command line is in the place of a command, and not below one.
fn is_command(word: &str) -> bool {
    let command = Cli::command();
    let first = std::env::args().skip(1).find(|arg| arg == word || command.find_subcommand(arg).is_some());
    first.is_some_and(|first| first == word)
}

/// Runs the program.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == caco_engine::guard::COMMAND) {
        caco_engine::guard::watch();
        return ExitCode::SUCCESS;
    }
    let cli = parse();
    trace(cli.verbose);
    Project::locate(&cli.project).and_then(|project| run(cli.command, &project)).unwrap_or_else(|error| report(&error))
}

fn run(command: Command, project: &Project) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::main(&args, project),
        Command::Plan(args) => plan::main(&args, project),
        Command::Check(args) => check::main(&args, project),
        Command::Log(args) => log::main(&args, project),
        Command::Watch(args) => watch::main(&args, project),
        Command::Show(args) => show::main(&args, project),
        Command::Why(args) => why::main(&args, project),
        Command::Diff(args) => diff::main(&args, project),
        Command::Sweep(args) => sweep::main(&args, project),
        Command::History(args) => history::main(&args, project),
        Command::Graph(args) => graph::main(&args, project),
        Command::Data(args) => data::main(&args, project),
        Command::Embed(args) => embed::main(&args, project),
        Command::Get(args) => get::main(&args, project),
        Command::Cache(args) => cache::main(&args, project),
        Command::Divergences(args) => divergences::main(&args, project),
        Command::Audit(args) => audit::main(&args, project),
        Command::Cite(args) => cite::main(&args, project),
        Command::Export(args) => export::main(&args, project),
        Command::Signer(args) => signer::main(&args, project),
        Command::Code(args) => code::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Doctor(args) => doctor::main(&args, project),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
        Command::ExecStage(args) => exec_stage::main(&args),
    }
}

/// Prints an error. A closed pipe is none.
fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    let on_stdout = error.to_string() == UNWRITTEN;
    if on_stdout && error.chain().filter_map(|e| e.downcast_ref()).any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    if let Some(invalid) = error.downcast_ref::<caco_pipeline::pipeline::Invalid>() {
        for diagnostic in &invalid.errors {
            say!("{}", diagnostic.render(&invalid.sources, colour()));
        }
        return ExitCode::from(FAILED);
    }
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    let (what, help): (Vec<&str>, Vec<Option<&str>>) = chain.iter().map(|text| split(text)).unzip();
    say!("error: {}", what.join(": "));
    help.iter().flatten().for_each(|help| say!("help: {help}"));
    ExitCode::from(FAILED)
}

/// What happened and, after a semicolon, what to do about it.
fn split(error: &str) -> (&str, Option<&str>) {
    error.rsplit_once("; ").map_or((error, None), |(what, help)| (what, Some(help)))
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
    let written = serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from);
    written.and_then(|()| writeln!(out)).and_then(|()| out.flush()).context(UNWRITTEN)
}

/// Prints text with an audit's marks on stdout, in colours where it takes them.
fn print_marked(text: &str) -> anyhow::Result<()> {
    let marks = [("✓", console::Color::Green), ("△", console::Color::Yellow), ("✗", console::Color::Red)];
    let coloured = marks.iter().fold(text.to_string(), |text, (mark, colour)| {
        text.replace(mark, &console::style(mark).fg(*colour).to_string())
    });
    print(&coloured)
}

/// Prints text on stdout.
fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints bytes on stdout as they are.
fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context(UNWRITTEN)
}

/// What is said where stdout is full. A closed one is no error: see [`report`].
const UNWRITTEN: &str = "cannot write to stdout";
