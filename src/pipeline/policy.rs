//! How a stage is run, as set in the pipeline file. None of this is part of a key.

use super::{diagnostic::Diagnostic, kind::Registry, layers::Layered};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The field `run` of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How often a failed stage is retried, with increasing pauses.
    pub retries: u32,
    /// After this many minutes the stage is stopped and counts as failed.
    pub timeout_minutes: Option<f64>,
    /// CPU cores it takes. The default is all for tensor stages, and one for commands.
    pub cpus: Option<u32>,
    /// GPUs it takes. The default is one for stages that compute on a GPU, if there is one, and none for others. With 0 such a
    /// stage computes on the CPU.
    pub gpus: Option<u32>,
    /// Memory it takes, in GiB.
    pub memory_gib: f64,
    /// Keep digests of every step of a training: `caco audit --rerun --locate` then names the first step and tensor in which
    /// a rerun differs. Every step copies all tensors from the device.
    pub step_digests: bool,
    /// Processes that compute the stage together, each with its part of the cores, or a GPU: a power of two. Those of a training
    /// divide its `shards`. The default is one.
    pub processes: Option<u32>,
}

impl Policy {
    /// The number of processes.
    pub fn processes(&self) -> u32 {
        self.processes.unwrap_or(1)
    }
}

/// An error if a stage's work, of which `most` processes can have a part, cannot be divided among the processes that it is to
/// have, or if these are to share GPUs.
pub(crate) fn check_processes(policy: &Policy, layered: &Layered, most: u32) -> Result<(), Diagnostic> {
    let processes = policy.processes();
    let error = |field, message, help: String| {
        let at = layered.node.field("run").map_or(layered.node.at, |run| run.field(field).unwrap_or(run).at);
        Err(Diagnostic::new(message).at(at).help(help))
    };
    if !processes.is_power_of_two() || processes > most {
        let help = match most {
            1 => "leave it out, or give a training `shards`: a power of two that divides its batch".into(),
            _ => format!("give a power of two, of at most {most}"),
        };
        return error(
            "processes",
            format!("run.processes is {processes}, and this stage can have at most {most}"),
            help,
        );
    }
    match policy.gpus {
        Some(gpus) if processes > 1 && gpus > 0 && gpus != processes => {
            let help = "give as many GPUs as processes, or gpus: 0 to compute on the CPU".into();
            error("gpus", format!("run.gpus is {gpus}, for {processes} processes"), help)
        }
        _ => Ok(()),
    }
}

/// The error of a stage that is to keep digests of steps and takes none.
pub(crate) fn no_steps(layered: &Layered, kind: &str, registry: &Registry) -> Diagnostic {
    let at = layered.node.field("run").map_or(layered.node.at, |run| run.field("step_digests").unwrap_or(run).at);
    let trainings: Vec<&str> = registry.kinds().iter().filter(|kind| kind.training).map(|kind| kind.name).collect();
    let help = match trainings.is_empty() {
        true => "leave it out".into(),
        false => format!("leave it out; trainings are stages of kind {}", trainings.join(", ")),
    };
    Diagnostic::new(format!("run.step_digests is for trainings, and a stage of kind '{kind}' is none"))
        .at(at)
        .help(help)
}
