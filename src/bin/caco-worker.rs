//! Executes one stage: `caco-worker JOB.json`. Started by the runner. `--bench-step` measures a training step
//! instead, `--bench-loader` the loader.

use caco::{
    data::bench as loader,
    job::{Job, STOPPED, Stopped, Task},
    train::bench,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).without_time().init();
    let Some(argument) = std::env::args().nth(1) else {
        eprintln!("usage: caco-worker JOB.json (the runner starts it; see `caco run`)");
        return ExitCode::from(2);
    };
    if argument == "--doctor" {
        println!("{}", caco::stages::describe_libtorch());
        return ExitCode::SUCCESS;
    }
    let done = match argument.as_str() {
        "--bench-step" => answer(bench::step),
        "--bench-loader" => answer(loader::measure),
        _ => execute(&argument),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Stopped>() => ExitCode::from(STOPPED as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what stdin describes.
fn answer<Setup: DeserializeOwned, Report: Serialize>(
    measure: fn(&Setup) -> anyhow::Result<Report>,
) -> anyhow::Result<()> {
    let setup = serde_json::from_reader(std::io::stdin())?;
    println!("{}", serde_json::to_string(&measure(&setup)?)?);
    Ok(())
}

fn execute(path: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_slice(&std::fs::read(path)?)?;
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone())?;
    caco::stages::execute(&Task::new(job, stop))
}
