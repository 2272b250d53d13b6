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

    /// A command takes one core, and the GPUs that its file says. A stage that computes on a GPU takes one for each of its
    /// processes, or as many as its file says, and its part of the cores; others take all cores and no GPU.
    fn resources(&self, stage: &Stage, pool: &Pool) -> pool::Usual {
        let wanted = stage.policy.gpus;
        if stage.is_command {
            return pool::Usual { cpus: 1, gpus: wanted.unwrap_or(0) };
        }
        let gpus = if self.device == Device::Cpu || !stage.uses_device { 0 } else { pool.gpus.len() as u32 };
        match wanted.unwrap_or_else(|| stage.policy.processes()).min(gpus) {
            0 => pool::Usual { cpus: pool.cpus, gpus: 0 },
            taken => pool::Usual { cpus: (pool.cpus * taken / gpus).max(1), gpus: taken },
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

    /// An error if a stage is to have more processes than there are GPUs for them. Without any it computes on the CPU.
    pub fn ensure_gpus(&self, stage: &Stage, pool: &Pool) -> Result<()> {
        let (processes, gpus) = (stage.policy.processes() as usize, pool.gpus.len());
        let on_cpu = self.device == Device::Cpu || !stage.uses_device || stage.policy.gpus == Some(0) || gpus == 0;
        if on_cpu || processes == 1 || processes <= gpus {
            return Ok(());
        }
        bail!(
            "stage '{}': run.processes is {processes}, and this run may use {gpus} GPU{}\n\
             help: give --set {}.run.processes={}, which changes no byte, or --device cpu{}",
            stage.name,
            if gpus == 1 { "" } else { "s" },
            stage.name,
            1 << gpus.ilog2(),
            if matches!(self.device, Device::Cuda(_)) { "; without --device it may use all GPUs" } else { "" }
        )
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
            device: self.device.of_stage(&prepared.gpus, &prepared.stage.policy),
            step_digests: prepared.stage.policy.step_digests,
            processes: prepared.stage.policy.processes(),
        };
        fs::create_dir_all(&job.byproducts).with_context(|| format!("cannot create {}", job.byproducts.display()))?;
        let file = prepared.work.join("job.json");
        fs::write(&file, serde_json::to_vec_pretty(&job)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut env = environment::of_worker(prepared.cpus.into(), prepared.stage.is_portable);
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
    let portable = setup["determinism"] == "Portable";
    let env = environment::of_worker(setup["threads"].as_u64().unwrap_or(1), portable);
    command.arg(what).env_clear().envs(env);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use caco_engine::gpu::Gpu;
    use caco_pipeline::policy::Policy;

    /// A stage that computes on a device, and says how many GPUs it takes.
    pub fn stage(gpus: Option<u32>) -> Stage {
        Stage {
            name: "train".into(),
            kind: "pretrain",
            is_command: false,
            uses_device: true,
            is_portable: false,
            expected: None,
            is_comparison: false,
            version: 1,
            key_parameters: "{}".into(),
            parameters: "".into(),
            inputs: vec![],
            outputs: vec![],
            policy: Policy { gpus, ..Policy::default() },
            pin: Default::default(),
            at: Default::default(),
        }
    }

    /// 8 cores and 4 GPUs.
    pub fn pool() -> Pool {
        Pool { cpus: 8, gpus: (0..4).map(Gpu::Number).collect(), memory_mib: 0 }
    }

    pub fn here(device: &str) -> Here {
        Here::new(device.parse().unwrap(), Path::new("/"), vec![])
    }

    #[test]
    fn a_stage_takes_gpus_only_where_it_computes_on_one() {
        let taken = |device: &str, stage: &Stage| {
            let pool::Usual { cpus, gpus } = here(device).resources(stage, &pool());
            (cpus, gpus)
        };
        for (gpus, expected) in [(None, (2, 1)), (Some(0), (8, 0)), (Some(2), (4, 2)), (Some(9), (8, 4))] {
            assert_eq!(taken("auto", &stage(gpus)), expected, "{gpus:?}");
            assert_eq!(taken("cpu", &stage(gpus)), (8, 0), "{gpus:?}");
            let on_cpu = Stage { uses_device: false, ..stage(gpus) };
            assert_eq!(taken("cuda", &on_cpu), (8, 0), "{gpus:?}");
            // What a command computes on is its own.
            let command = Stage { is_command: true, ..on_cpu };
            assert_eq!(taken("cpu", &command), (1, gpus.unwrap_or(0)));
        }
    }
}
