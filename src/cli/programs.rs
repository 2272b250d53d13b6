//! Which program executes a stage.

use crate::{
    engine::{
        exec::Launch,
        run::{Prepared, Programs},
    },
    job::Job,
    spec::{
        kind::{Command, Kind},
        pipeline::Stage,
    },
};
use anyhow::{Context, Result, bail};
use std::{fs, os::unix::fs::symlink, path::Path};

/// The programs on this machine.
#[derive(Debug, Clone)]
pub struct Here {
    /// The device for tensor stages.
    pub device: String,
}

impl Programs for Here {
    fn launch(&self, prepared: &Prepared) -> Result<Launch> {
        if prepared.stage.kind == Command::NAME { command(prepared) } else { self.worker(prepared) }
    }

    fn cpus(&self, stage: &Stage, available: u32) -> u32 {
        if stage.kind == Command::NAME { 1 } else { available }
    }
}

impl Here {
    fn worker(&self, prepared: &Prepared) -> Result<Launch> {
        let worker = std::env::current_exe()?.with_file_name("caco-worker");
        if !worker.exists() {
            let build = if cfg!(feature = "torch") {
                "build it with `make build`"
            } else {
                "this caco was built without the feature `torch`"
            };
            bail!(
                "stages of kind '{}' are executed by {}, which does not exist; {build}",
                prepared.stage.kind,
                worker.display()
            );
        }
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
        let file = prepared.work.join("job.json");
        fs::write(&file, serde_json::to_vec_pretty(&job)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut env: Vec<(String, String)> = std::env::vars().filter(|(name, _)| !name.starts_with("OMP_")).collect();
        env.push(("OMP_NUM_THREADS".into(), prepared.cpus.to_string()));
        // OpenMP's threads spin for milliseconds at every barrier unless told otherwise. The loader's threads, and
        // whatever else runs on the machine, need those cores: beside one busy process on two cores, a bank
        // initialisation of pipelines/tiny.ron took 1.2 times as long with the default (three pairs, 1.16 to 1.26).
        if !env.iter().any(|(name, _)| name == "GOMP_SPINCOUNT") {
            env.push(("GOMP_SPINCOUNT".into(), "5000".into()));
        }
        if !prepared.gpus.is_empty() {
            env.push(("CUDA_VISIBLE_DEVICES".into(), list(&prepared.gpus)));
        }
        Ok(Launch {
            argv: vec![text(&worker)?, text(&file)?],
            folder: prepared.work.into(),
            env,
            log: prepared.work.join("log"),
        })
    }
}

/// A command runs in the folder where its outputs are collected, its inputs linked in.
fn command(prepared: &Prepared) -> Result<Launch> {
    let command: Command = serde_json::from_str(prepared.stage.parameters()).context("parameters are JSON")?;
    let folder = prepared.work.join("out");
    for (slot, path) in &prepared.inputs {
        let link = folder.join(slot);
        if let Some(above) = link.parent() {
            fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))?;
        }
        symlink(path, &link).with_context(|| format!("cannot link input '{slot}' to {}", path.display()))?;
    }
    for output in &command.outputs {
        if let Some(above) = folder.join(output).parent() {
            fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))?;
        }
    }
    let temporary = prepared.work.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let mut env: Vec<(String, String)> = vec![("TMPDIR".into(), text(&temporary)?)];
    let handed_on = ["PATH", "HOME", "LANG"].into_iter().chain(command.pass_env.iter().map(String::as_str));
    env.extend(handed_on.filter_map(|name| Some((name.to_string(), std::env::var(name).ok()?))));
    if !prepared.gpus.is_empty() {
        env.push(("CUDA_VISIBLE_DEVICES".into(), list(&prepared.gpus)));
    }
    env.extend(command.env.clone());
    let argv = match command.shell {
        Some(line) => ["/bin/sh", "-e", "-u", "-c", &line].map(String::from).to_vec(),
        None => command.argv,
    };
    Ok(Launch { argv, folder, env, log: prepared.work.join("log") })
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(String::from).with_context(|| format!("{} is not UTF-8; choose another folder", path.display()))
}
