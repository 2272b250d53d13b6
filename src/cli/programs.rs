//! Which program executes a stage.

use crate::{
    engine::{
        command::{self, Place},
        confine::Confinement,
        exec::Launch,
        run::{Prepared, Programs},
    },
    job::Job,
    spec::{
        kind::{Command, Kind},
        pipeline::{Stage, expand},
    },
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Stdio};

/// The programs on this machine.
#[derive(Debug, Clone)]
pub struct Here {
    /// The device for tensor stages.
    device: String,
    /// What every command may open.
    machine: Confinement,
}

impl Programs for Here {
    fn launch(&self, prepared: &Prepared) -> Result<Launch> {
        if prepared.stage.kind != Command::NAME {
            return self.worker(prepared);
        }
        let command = command::read(prepared.stage.parameters())?;
        let allow = command.allow.iter().map(|path| allowed(path)).collect::<Result<Vec<_>>>()?;
        let Prepared { inputs, work, cpus, gpus, .. } = prepared;
        command::launch(&command, &Place { inputs, work, cpus: *cpus, gpus, allow: &allow, machine: &self.machine })
    }

    fn cpus(&self, stage: &Stage, available: u32) -> u32 {
        if stage.kind == Command::NAME { 1 } else { available }
    }
}

impl Here {
    /// The programs, with the device for tensor stages, and the folders that no command may read as a whole.
    pub fn new(device: &str, project: Vec<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Here { device: device.into(), machine: Confinement::of_machine(&path, &project) }
    }

    fn worker(&self, prepared: &Prepared) -> Result<Launch> {
        let worker = worker().with_context(|| format!("cannot execute a stage of kind '{}'", prepared.stage.kind))?;
        let job = Job {
            stage: prepared.stage.name.clone(),
            kind: prepared.stage.kind.into(),
            parameters: serde_json::from_str(prepared.stage.parameters()).context("parameters are JSON")?,
            inputs: prepared.inputs.iter().map(|(slot, path)| (slot.to_string(), path.clone())).collect(),
            out: prepared.work.join("out"),
            work: prepared.work.into(),
            byproducts: prepared.work.join("byproducts"),
            threads: prepared.cpus as usize,
            device: self.device.clone(),
        };
        fs::create_dir_all(&job.byproducts).with_context(|| format!("cannot create {}", job.byproducts.display()))?;
        let file = prepared.work.join("job.json");
        fs::write(&file, serde_json::to_vec_pretty(&job)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut env = environment(prepared.cpus.into());
        if !prepared.gpus.is_empty() {
            env.push(("CUDA_VISIBLE_DEVICES".into(), command::numbers(&prepared.gpus)));
        }
        Ok(Launch {
            argv: vec![command::text(&worker)?, command::text(&file)?],
            folder: prepared.work.into(),
            env,
            log: prepared.work.join("log"),
            confinement: None,
        })
    }
}

/// A file or folder that a command may read though it is no input.
fn allowed(path: &str) -> Result<PathBuf> {
    let unset = |variable| anyhow::anyhow!("allow: {path}: the environment variable {variable} is not set");
    let path = PathBuf::from(expand(path).map_err(unset)?);
    ensure!(path.exists(), "allow: {} does not exist; take it out of the list, or make it", path.display());
    Ok(path)
}

/// The program that executes tensor stages.
pub fn worker() -> Result<PathBuf> {
    let worker = std::env::current_exe()?.with_file_name("caco-worker");
    if !worker.exists() {
        let build = if cfg!(feature = "torch") {
            "build it with `make build`"
        } else {
            "this caco was built without the feature `torch`"
        };
        bail!("{} does not exist; {build}", worker.display());
    }
    Ok(worker)
}

/// Has the worker do what the flag `what` says, as `setup` describes it, and gives its answer. `setup.threads` is heeded.
pub fn ask(what: &str, setup: &Value) -> Result<Value> {
    let worker = worker()?;
    let mut command = std::process::Command::new(&worker);
    command.arg(what).env_clear().envs(environment(setup["threads"].as_u64().unwrap_or(1)));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", worker.display()))?;
    serde_json::to_writer(child.stdin.take().context("the worker's stdin")?, setup)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "it failed ({}), as the lines above say", output.status);
    serde_json::from_slice(&output.stdout).context("the worker's answer is not JSON")
}

/// The environment of a program that computes with so many threads.
pub fn environment(threads: u64) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = std::env::vars().filter(|(name, _)| !name.starts_with("OMP_")).collect();
    env.push(("OMP_NUM_THREADS".into(), threads.to_string()));
    // OpenMP's threads spin for milliseconds at every barrier unless told otherwise. The loader's threads, and
    // whatever else runs on the machine, need those cores: beside one busy process on two cores, a bank
    // initialisation of pipelines/tiny.ron took 1.2 times as long with the default (three pairs, 1.16 to 1.26).
    if !env.iter().any(|(name, _)| name == "GOMP_SPINCOUNT") {
        env.push(("GOMP_SPINCOUNT".into(), "5000".into()));
    }
    env
}
