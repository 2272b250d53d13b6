//! One file a stage kind: resolved parameters and input paths → output files and metrics. The only place that sees both
//! the engine's words ([`Task`]) and the experiment half.

#[allow(dead_code, reason = "waits for the loader")]
mod init_bank;
mod init_encoder;
#[allow(dead_code, reason = "waits for the loader")]
mod pretrain;
#[allow(dead_code, reason = "waits for the loader")]
mod training;

use crate::{
    job::Task,
    spec::kind::{InitEncoder, Kind as _},
};
use anyhow::{Result, bail};

/// Executes one stage.
pub fn execute(task: &Task) -> Result<()> {
    match task.job.kind.as_str() {
        InitEncoder::NAME => init_encoder::run(task),
        other => bail!("kind '{other}' is not built in"),
    }
}
