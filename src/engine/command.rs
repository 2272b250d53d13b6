//! What a stage of kind `command` starts: a program of the caller's, in a folder of its own.

use super::exec::Launch;
use crate::{job, spec::kind::Command};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Prepares the folder where a command runs and its outputs are collected, links its inputs in, and names the program.
pub fn launch(parameters: &str, inputs: &[(&str, PathBuf)], work: &Path, gpus: &[u32]) -> Result<Launch> {
    let command: Command = serde_json::from_str(parameters).context("parameters are JSON")?;
    let folder = work.join("out");
    for (slot, path) in inputs {
        let link = folder.join(slot);
        make_above(&link)?;
        symlink(path, &link).with_context(|| format!("cannot link input '{slot}' to {}", path.display()))?;
    }
    for output in &command.outputs {
        make_above(&folder.join(output))?;
    }
    let temporary = work.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let mut env: Vec<(String, String)> = vec![("TMPDIR".into(), text(&temporary)?)];
    env.push((job::PROGRESS_VARIABLE.into(), text(&work.join(job::PROGRESS))?));
    let handed_on = ["PATH", "HOME", "LANG"].into_iter().chain(command.pass_env.iter().map(String::as_str));
    env.extend(handed_on.filter_map(|name| Some((name.to_string(), std::env::var(name).ok()?))));
    if !gpus.is_empty() {
        env.push(("CUDA_VISIBLE_DEVICES".into(), numbers(gpus)));
    }
    env.extend(command.env.clone());
    let argv = match command.shell {
        Some(line) => ["/bin/sh", "-e", "-u", "-c", &line].map(String::from).to_vec(),
        None => command.argv,
    };
    Ok(Launch { argv, folder, env, log: work.join("log") })
}

fn make_above(path: &Path) -> Result<()> {
    let Some(above) = path.parent() else { return Ok(()) };
    fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))
}

/// Numbers of GPUs as CUDA_VISIBLE_DEVICES has them.
pub fn numbers(gpus: &[u32]) -> String {
    gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A path as text.
pub fn text(path: &Path) -> Result<String> {
    path.to_str().map(String::from).with_context(|| format!("{} is not UTF-8; choose another folder", path.display()))
}
