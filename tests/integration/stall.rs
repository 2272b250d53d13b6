//! Workers that hang, in an endless kernel or stopped by a signal. Both are detected, killed, and retried from their
//! checkpoint.

use crate::{
    experiment::{SMALL, tiny},
    process::{signal, wait_for},
    project::Project,
    training::{curves, digests},
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const STAGE: &str = "pretrain/short";

fn run(project: &Project, stage: &str, set: &[&str]) -> Command {
    let mut args = vec!["run", "p.ron", stage];
    SMALL.iter().chain(set).for_each(|s| args.extend(["--set", s]));
    let mut command = project.command(&args);
    command.env("CACO_CHECKPOINT_SECONDS", "0.1").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The worker that executes a stage in this project.
fn worker(project: &Project) -> Option<u32> {
    let of_ours = |process: &Path| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("caco-worker") && line.contains(project.path().to_str().unwrap())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|path| of_ours(path)).find_map(|path| path.file_name()?.to_str()?.parse().ok())
}

/// Makes a training run hang with `hang`. Returns the output of the run and the log of its stage. The result must be
/// that of an undisturbed run.
fn hung(preload: Option<&Path>, jobs: &str, hang: impl Fn(&Project)) -> (String, String) {
    let (straight, broken) = (tiny(), tiny());
    // This also succeeds on a slow machine, because a retry resumes from its checkpoint.
    let cpus = format!("pretrain.run=(retries: 20, cpus: {jobs})");
    // On OpenMP's threads, one of which is made to hang.
    let set = ["pretrain/short.epochs=60", "common.determinism=Fast", &cpus];
    assert!(run(&straight, STAGE, &set).output().unwrap().status.success());
    // The inputs of the training are computed undisturbed.
    assert!(run(&broken, "bank/short", &set).output().unwrap().status.success());
    let mut command = run(&broken, STAGE, &set);
    command.env("CACO_STALL_SECONDS", "2").env("STALL_FILE", broken.path().join("stall"));
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let mut child = command.spawn().unwrap();
    // Enough steps for the watchdog to estimate the time of one.
    let steps =
        || curves(&broken).iter().map(|path| fs::read_to_string(path).unwrap_or_default().lines().count()).sum();
    wait_for("forty steps", || { let steps: usize = steps(); steps >= 40 } || child.try_wait().unwrap().is_some());
    hang(&broken);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(digests(&straight, STAGE), digests(&broken, STAGE), "{said}");
    (said, broken.ok(&["log", STAGE]).out)
}

#[test]
fn an_endless_kernel_is_killed_and_retried() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("stall.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/stall.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    assert!(compile.status().unwrap().success());
    let (said, log) = hung(Some(&library), "2", |project| project.write("stall", ""));
    assert!(log.contains("error: step ") && log.contains(" has not ended after "), "{log}");
    assert!(log.contains("GOMP_parallel"), "the stack of the thread that hangs: {log}");
    assert!(said.contains("has not ended after"), "{said}");
}

#[test]
fn a_stopped_worker_is_killed_and_retried() {
    // One thread, so that other tests beside it slow it down less.
    let (said, log) = hung(None, "1", |project| assert!(signal(worker(project).unwrap(), libc::SIGSTOP)));
    assert!(said.contains("gave no sign of life for"), "{said}");
    assert!(log.contains("state T (stopped)"), "{log}");
}
