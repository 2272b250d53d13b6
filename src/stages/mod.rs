//! One file a stage kind: resolved parameters and input paths → output files and metrics. The only place that sees both
//! the engine's words ([`Task`]) and the experiment half.

use crate::job::Task;
use anyhow::{Result, bail};

/// Executes one stage.
pub fn execute(task: &Task) -> Result<()> {
    match task.job.kind.as_str() {
        other => bail!("kind '{other}' is not built in"),
    }
}
