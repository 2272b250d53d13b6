//! `caco exec-stage`

use super::{FAILED, run::on_signals};
use anyhow::Result;
use caco_engine::{
    exec::{self, Outcome},
    signals::Signals,
};
use caco_pipeline::job;
use clap::Args;
use std::{path::PathBuf, process::ExitCode, sync::Arc};

#[derive(Args)]
pub struct ExecStageArgs {
    /// The launch file. The report is written to FILE.report.json
    file: PathBuf,
}

/// Exits with 0, with a worker's own code where it stopped or stalled, and with 1 otherwise.
pub fn main(args: &ExecStageArgs) -> Result<ExitCode> {
    let signals = Arc::new(Signals::default());
    on_signals(&signals)?;
    let report = exec::exec_stage(&args.file, &signals)?;
    Ok(match report.outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Stopped => ExitCode::from(job::STOPPED as u8),
        Outcome::Stalled => ExitCode::from(job::STALLED as u8),
        Outcome::Failed(why) => {
            say!("error: {why}");
            ExitCode::from(FAILED)
        }
    })
}
