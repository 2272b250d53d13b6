//! The device for tensors, as a run is given it.

use anyhow::{Context as _, Result};
use caco_engine::gpu::{self, Gpu};
use caco_pipeline::policy::Policy;
use std::{fmt, str::FromStr};

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A GPU if there is one, or else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, of those that a run may use.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, number) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            (_, Some(number)) => Ok(Device::Cuda(number)),
            _ => Err("give auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// The GPUs that a run hands out: those `listed`, or all that it may use; of them the one that is asked for by number.
    /// None if no GPU is found. Then the worker decides, which asks the driver.
    pub fn gpus(self, listed: Option<&[Gpu]>) -> Result<Vec<Gpu>> {
        let all = listed.map_or_else(gpu::visible, <[Gpu]>::to_vec);
        match self {
            Device::Cuda(number) if !all.is_empty() => {
                let listed = all.iter().map(Gpu::to_string).collect::<Vec<_>>().join(", ");
                let gpu = all.into_iter().nth(number).with_context(|| {
                    format!("--device {self} does not exist; this run may use the GPUs {listed}, counted from 0")
                })?;
                Ok(vec![gpu])
            }
            _ => Ok(all),
        }
    }

    /// The name by which a stage with this policy opens it that was given `gpus`.
    /// Several processes each need to know what the others compute on.
    pub fn of_stage(self, gpus: &[Gpu], policy: &Policy) -> String {
        let is_joint = policy.processes() > 1;
        match self {
            Device::Auto if is_joint && !gpus.is_empty() => Device::Cuda(0).to_string(),
            Device::Auto if is_joint => Device::Cpu.to_string(),
            // The stage sees only its own GPUs, numbered from 0.
            Device::Cuda(_) if !gpus.is_empty() => Device::Cuda(0).to_string(),
            // All others belong to other stages.
            _ if gpus.is_empty() && policy.gpus == Some(0) => Device::Cpu.to_string(),
            _ => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Device {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(device(text).to_string(), text);
        }
        assert_eq!(device("cuda"), Device::Cuda(0));
        assert!(["gpu", "cuda:", "cuda:x", ""].iter().all(|text| text.parse::<Device>().is_err()));
    }

    #[test]
    fn a_number_selects_one_of_the_gpus_of_a_run() {
        let all = [3, 5].map(Gpu::Number);
        assert_eq!(device("auto").gpus(Some(&all)).unwrap(), all);
        assert_eq!(device("cuda:1").gpus(Some(&all)).unwrap(), [Gpu::Number(5)]);
        let error = device("cuda:2").gpus(Some(&all)).unwrap_err().to_string();
        assert_eq!(error, "--device cuda:2 does not exist; this run may use the GPUs 3, 5, counted from 0");
        assert!(device("cuda:2").gpus(Some(&[])).unwrap().is_empty());
    }

    #[test]
    fn within_a_claim_the_device_is_the_first() {
        let claimed = [Gpu::Number(5)];
        let wanting = |gpus| Policy { gpus, ..Policy::default() };
        assert_eq!(device("cuda:1").of_stage(&claimed, &wanting(None)), "cuda:0");
        assert_eq!(device("auto").of_stage(&claimed, &wanting(None)), "auto");
        assert_eq!(device("cpu").of_stage(&claimed, &wanting(Some(1))), "cpu");
        assert_eq!(device("cuda:1").of_stage(&[], &wanting(None)), "cuda:1");
        assert_eq!(device("auto").of_stage(&[], &wanting(Some(0))), "cpu");
        let two = Policy { processes: Some(2), ..Policy::default() };
        assert_eq!(device("auto").of_stage(&claimed, &two), "cuda:0");
        assert_eq!(device("auto").of_stage(&[], &two), "cpu");
    }
}
