//! What a stage of kind `command` starts: a program of the caller's, in a folder of its own, confined to what it
//! declares.

use super::{
    confine::{self, Confinement},
    exec::Launch,
    gpu::Gpu,
    metrics,
    mounts::{self, Mounts},
    place::{Given, place},
    which,
};
use anyhow::{Context, Result};
use caco_pipeline::{
    kind::{Command, Delivery, Isolation},
    progress,
};
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

/// The folders of a store with what is published, and what is assembled from it.
const PUBLISHED: [&str; 3] = ["objects", "results", "trees"];

/// A command's own folder for temporary files, in its stage's folder.
pub(crate) const TMP: &str = "tmp";

/// How bash executes a `shell` line; the arguments after the line become "$0" and "$@". `sh` is another program on each
/// machine, and Debian's does not report that an early command of a pipe failed. bash does, and is the same everywhere. With
/// inherit_errexit it also ends at a failure in `$(…)`, as `sh -e` does.
const STRICT: [&str; 7] = ["-e", "-u", "-o", "pipefail", "-O", "inherit_errexit", "-c"];
const NO_SHELL: &str = "`shell` is executed by bash, which is neither /bin/bash nor on PATH; install bash, or name the shell that is there: argv: [\"sh\", \"-euc\", \"…\"]";

/// Where a command runs, and what it is given.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its inputs.
    pub inputs: &'a [Given<'a>],
    /// The stage's own folder.
    pub work: &'a Path,
    /// CPU cores.
    pub cpus: u32,
    /// GPUs, by number.
    pub gpus: &'a [Gpu],
    /// What its field `allow` names.
    pub allow: &'a [PathBuf],
    /// What every command may open.
    pub machine: &'a Confinement,
}

/// Prepares the folder where a command runs and its outputs are collected, places its inputs there, and names the program.
pub fn launch(command: &Command, prepared: &Place) -> Result<Launch> {
    let folder = prepared.work.join("out");
    let (mut mounts, can_mount) = (Mounts::default(), mounts::are_available());
    for given in prepared.inputs {
        let at = folder.join(given.slot);
        make_above(&at)?;
        place(given, &at, can_mount.then_some(&mut mounts)).with_context(|| format!("input '{}'", given.slot))?;
    }
    for output in command.outputs.iter().chain(&command.metrics) {
        make_above(&folder.join(output))?;
    }
    if let Some((file, text)) = parameters_text(command)? {
        let file = folder.join(file);
        make_above(&file)?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let env = environment(command, prepared)?;
    let argv = argv(command, &folder)?;
    let confinement = match command.isolation {
        Isolation::None => None,
        Isolation::Landlock => Some(confinement(&argv[0], prepared)),
    };
    if can_mount && (confinement.is_none() || !confine::is_enforced()) {
        shield(prepared.work, &mut mounts)?;
    }
    Ok(Launch { argv, folder, env, log: prepared.work.join("log"), confinement, mounts })
}

/// Makes the results of the store that a stage's folder is in read-only for a stage that is not confined. The rest of the
/// store stays as it is: it can hard-link and move files to its folder only if both are on one mount.
fn shield(work: &Path, mounts: &mut Mounts) -> Result<()> {
    let store = work.ancestors().nth(2).context("a stage's folder is in the store")?;
    for folder in PUBLISHED.iter().map(|name| store.join(name)) {
        // One that another stage creates later would be open to this one.
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        mounts.protect(&folder);
    }
    Ok(())
}

/// The command that these parameters, JSON, describe.
pub fn read(parameters: &str) -> Result<Command> {
    serde_json::from_str(parameters).context("parameters are JSON")
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn confinement(program: &str, place: &Place) -> Confinement {
    let mut confinement = place.machine.clone();
    confinement.let_write(place.work);
    place.allow.iter().for_each(|path| confinement.let_read(path));
    if let Some(program) = which::find(program, &path(), &place.work.join("out")) {
        confinement.let_run(&program);
    }
    confinement
}

fn argv(command: &Command, folder: &Path) -> Result<Vec<String>> {
    let mut argv = match &command.shell {
        Some(line) => {
            let shell = shell(&path(), folder).context(NO_SHELL)?;
            [text(&shell)?]
                .into_iter()
                .chain(STRICT.into_iter().chain([line.as_str(), "bash"]).map(String::from))
                .collect()
        }
        None => command.argv.clone(),
    };
    if command.parameters_as == Delivery::Arguments {
        argv.extend(command.parameters.iter().map(|(name, value)| format!("--{name}={}", plain(value))));
    }
    Ok(argv)
}

/// Where bash is. The system's own comes first; a machine may have none there (NixOS) or at all (Alpine).
fn shell(path: &OsStr, folder: &Path) -> Option<PathBuf> {
    let own = Path::new("/bin/bash");
    if own.is_file() { Some(own.into()) } else { which::find("bash", path, folder) }
}

fn environment(command: &Command, prepared: &Place) -> Result<Vec<(String, String)>> {
    let temporary = prepared.work.join(TMP);
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let mut env: Vec<(String, String)> = vec![("TMPDIR".into(), text(&temporary)?)];
    env.push((progress::PROGRESS_VARIABLE.into(), text(&prepared.work.join(progress::PROGRESS))?));
    // Numpy, PyTorch and most else compute with as many threads as one of these says.
    let threads = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"].map(|name| (name.into(), prepared.cpus.to_string()));
    env.extend(threads);
    let handed_on = ["PATH", "HOME", "LANG"].into_iter().chain(command.pass_env.iter().map(String::as_str));
    env.extend(handed_on.filter_map(|name| Some((name.to_string(), std::env::var(name).ok()?))));
    if !prepared.gpus.is_empty() {
        env.push(("CUDA_VISIBLE_DEVICES".into(), visible(prepared.gpus)));
    }
    if command.parameters_as == Delivery::Environment {
        env.extend(command.parameters.iter().map(|(name, value)| (name.clone(), plain(value))));
    }
    env.extend(command.env.clone());
    Ok(env)
}

/// The file with the parameters and its text, where they are given so.
fn parameters_text(command: &Command) -> Result<Option<(&str, String)>> {
    Ok(match &command.parameters_as {
        Delivery::Json(file) => Some((file, serde_json::to_string_pretty(&command.parameters)? + "\n")),
        Delivery::Ron(file) => {
            Some((file, ron::ser::to_string_pretty(&command.parameters, Default::default())? + "\n"))
        }
        _ => None,
    })
}

/// A value as one argument: a string as it is, all else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn make_above(path: &Path) -> Result<()> {
    let Some(above) = path.parent() else { return Ok(()) };
    fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))
}

/// GPUs as CUDA_VISIBLE_DEVICES lists them.
pub fn visible(gpus: &[Gpu]) -> String {
    gpus.iter().map(Gpu::to_string).collect::<Vec<_>>().join(",")
}

/// A path as text.
pub fn text(path: &Path) -> Result<String> {
    path.to_str().map(String::from).with_context(|| format!("{} is not UTF-8; choose another folder", path.display()))
}

/// The file that a command writes its metrics to, if it names one.
pub fn metrics_file(parameters: &str) -> Option<String> {
    read(parameters).ok()?.metrics
}

/// Puts what a command measured into its output folder as metrics are kept, from the file that its parameters name.
pub fn collect_metrics(parameters: &str, out: &Path) -> Result<()> {
    read(parameters)?.metrics.map_or(Ok(()), |file| metrics::collect(&file, out))
}
