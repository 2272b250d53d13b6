//! The methods of pre-training, one file each, and the table of them.

pub mod caco;

use super::{checkpoint::Saved, method::Method};
use anyhow::{Context as _, Result};
use caco_kinds::{Method as Named, Pretrain};
use tch::Device;

/// The method of a stage with its initial state. `init` is the bank initialisation, for a method that starts from one.
pub fn begin(stage: &Pretrain, init: Option<Saved>, device: Device) -> Result<Box<dyn Method>> {
    Ok(match &stage.method {
        Named::CaCo(parameters) => {
            let init = init.context("this method starts from a bank initialisation")?;
            Box::new(caco::CaCo::begin(parameters, stage, init, device)?)
        }
    })
}
