//! Which program executes a stage.

use super::device::Device;
use anyhow::{Context, Result, bail, ensure};
use caco_engine::{
    command::{self, Place},
    confine::Confinement,
    environment,
    exec::Launch,
    mounts::Mounts,
    pool::{self, Pool},
    run::{Prepared, Programs},
};
use caco_pipeline::progress::Progress;
use caco_pipeline::{
    job::Job,
    pipeline::{Stage, expand},
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

/// The programs on this machine.
#[derive(Debug, Clone)]
pub struct Here {
    /// The device for tensor stages.
    device: Device,
    /// Where relative paths of the pipeline start.
    root: PathBuf,
    /// What every command may open.
    machine: Confinement,
}

impl Programs for Here {
    fn launch(&self, prepared: &Prepared) -> Result<Launch> {
        if !prepared.stage.is_command {
            return self.worker(prepared);
        }
        let command = command::read(prepared.stage.parameters())?;
        let allow = command.allow.iter().map(|path| allowed(path, &self.root)).collect::<Result<Vec<_>>>()?;
        let Prepared { inputs, work, cpus, gpus, .. } = prepared;
        command::launch(&command, &Place { inputs, work, cpus: *cpus, gpus, allow: &allow, machine: &self.machine })
    }

    /// A command takes one core. A stage that computes on a GPU takes one, and its part of the cores; others take all cores.
    fn resources(&self, stage: &Stage, pool: &Pool) -> pool::Usual {
        if stage.is_command {
            return pool::Usual { cpus: 1, gpus: 0 };
        }
        let gpus = if self.device == Device::Cpu || !stage.uses_device { 0 } else { pool.gpus.len() as u32 };
        match stage.policy.gpus.unwrap_or(gpus.min(1)).min(gpus) {
            0 => pool::Usual { cpus: pool.cpus, gpus: 0 },
            taken => pool::Usual { cpus: (pool.cpus * taken / gpus).max(1), gpus: 1 },
        }
    }
}

impl Here {
    /// The programs, with the device for tensor stages, the project's folder, and the folders that no command may read
    /// as a whole.
    pub fn new(device: Device, root: &Path, project: Vec<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Here { device, root: root.into(), machine: Confinement::of_machine(&path, &project) }
    }

    fn worker(&self, prepared: &Prepared) -> Result<Launch> {
        let worker = worker().with_context(|| format!("cannot execute a stage of kind '{}'", prepared.stage.kind))?;
        let job = Job {
            stage: prepared.stage.name.clone(),
            kind: prepared.stage.kind.into(),
            parameters: serde_json::from_str(prepared.stage.parameters()).context("parameters are JSON")?,
            inputs: prepared.inputs.iter().map(|given| (given.slot.to_string(), given.at.path.clone())).collect(),
            out: prepared.work.join("out"),
            work: prepared.work.into(),
            byproducts: prepared.work.join("byproducts"),
            threads: prepared.cpus as usize,
            device: self.device.of_stage(&prepared.gpus, prepared.stage.policy.gpus),
            step_digests: prepared.stage.policy.step_digests,
        };
        fs::create_dir_all(&job.byproducts).with_context(|| format!("cannot create {}", job.byproducts.display()))?;
        let file = prepared.work.join("job.json");
        fs::write(&file, serde_json::to_vec_pretty(&job)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut env = environment(prepared.cpus.into(), prepared.stage.is_portable);
        if !prepared.gpus.is_empty() {
            env.push(("CUDA_VISIBLE_DEVICES".into(), command::visible(&prepared.gpus)));
        }
        Ok(Launch {
            argv: vec![command::text(&worker)?, command::text(&file)?],
            folder: prepared.work.into(),
            env,
            log: prepared.work.join("log"),
            confinement: None,
            mounts: Mounts::default(),
        })
    }
}

/// A file or folder that a command may read though it is no input.
fn allowed(path: &str, root: &Path) -> Result<PathBuf> {
    let unset = |variable| anyhow::anyhow!("allow: {path}: the environment variable {variable} is not set");
    let expanded = expand(path).map_err(unset)?;
    let path = root.join(&expanded);
    ensure!(path.exists(), "allow: {expanded} does not exist; take it out of the list, or make it");
    Ok(path)
}

/// The program that executes tensor stages.
pub fn worker() -> Result<PathBuf> {
    let worker = std::env::current_exe()?.with_file_name("caco-worker");
    if !worker.exists() {
        bail!("{} does not exist; build it with `make build`", worker.display());
    }
    Ok(worker)
}

/// Has the worker do what the flag `what` says, as `setup` describes it, with `setup.threads` threads. Gives its answer.
pub fn ask(what: &str, setup: &Value) -> Result<Value> {
    ask_watched(what, setup, |_| ())
}

/// The same, with what the worker says in between of how far it is.
pub fn ask_watched(what: &str, setup: &Value, mut watch: impl FnMut(&Progress)) -> Result<Value> {
    let worker = worker()?;
    let mut command = std::process::Command::new(&worker);
    command
        .arg(what)
        .env_clear()
        .envs(environment(setup["threads"].as_u64().unwrap_or(1), setup["determinism"] == "Portable"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", worker.display()))?;
    // A worker that ended before it read its task says why.
    let written = serde_json::to_writer(child.stdin.take().context("the worker's stdin")?, setup);
    let mut answer = String::new();
    for line in BufReader::new(child.stdout.take().context("the worker's stdout")?).lines() {
        // The answer is the last line; those before it say how far the worker is.
        let before = std::mem::replace(&mut answer, line?);
        serde_json::from_str(&before).iter().for_each(&mut watch);
    }
    let status = child.wait()?;
    ensure!(status.success(), "it failed ({status}), as the lines above say");
    written.context("cannot send the worker its task")?;
    serde_json::from_str(&answer).context("the worker's answer is not JSON")
}

/// The environment of a program that computes with so many threads. If its results must be portable, each of its threads
/// computes on its own.
pub fn environment(threads: u64, portable: bool) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = environment::inherited(portable).collect();
    env.push(("OMP_NUM_THREADS".into(), if portable { 1 } else { threads }.to_string()));
    let mut default = |names: &[&str], value: &str| {
        if !env.iter().any(|(name, _)| names.contains(&name.as_str())) {
            env.push((names[0].into(), value.into()));
        }
    };
    // cuBLAS is deterministic only with a workspace of fixed size, which it reads here.
    default(&["CUBLAS_WORKSPACE_CONFIG"], ":4096:8");
    // Views of several sizes, and smaller batches at the end of an epoch, would leave a GPU's memory in pieces that fit
    // nothing else. The second name is the older one.
    default(&["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"], "expandable_segments:True");
    // OpenMP's threads spin for milliseconds at every barrier by default. The loader's threads, and
    // whatever else runs on the machine, need those cores: beside one busy process on two cores, a bank
    // initialisation of pipelines/tiny.ron took 1.2 times as long with the default (three pairs, 1.16 to 1.26).
    default(&["GOMP_SPINCOUNT"], "5000");
    env
}
