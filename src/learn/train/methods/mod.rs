//! The methods of pre-training, one file each, and the table of them.

pub mod adco;
pub mod byol;
pub mod caco;
pub mod moco_v2;
pub mod simclr;
pub mod swav;

use super::{checkpoint::Saved, method::Method, momentum_contrast::MomentumContrast};
use crate::model::{Network, Shape};
use anyhow::{Context as _, Result, bail};
use caco_kinds::{Method as Named, Pretrain};
use tch::{Device, Kind};

/// The method of a stage with its initial state. `init` is the bank initialisation, for a method that starts from one.
pub fn begin(stage: &Pretrain, init: Option<Saved>, device: Device) -> Result<Box<dyn Method>> {
    let initialised = init.map(|init| MomentumContrast::initialised(&stage.model, init, device)).transpose()?;
    Ok(match &stage.method {
        Named::CaCo(parameters) => {
            let state = initialised.context("CaCo starts from a bank initialisation")?;
            Box::new(caco::CaCo::new(state, parameters, stage))
        }
        Named::MoCoV2(parameters) => {
            let state = MomentumContrast::draw(stage, parameters.queue_size, device);
            Box::new(moco_v2::MoCoV2::new(state, parameters, stage.into()))
        }
        Named::AdCo(parameters) => {
            let state = match (initialised, parameters.columns()) {
                (Some(state), _) => state,
                (None, Some(columns)) => MomentumContrast::draw(stage, columns, device),
                (None, None) => bail!("AdCo starts from the bank initialisation that it names"),
            };
            Box::new(adco::AdCo::new(state, parameters, stage.into()))
        }
        Named::SimCLR(parameters) => Box::new(simclr::SimCLR::new(draw(stage, device), parameters, stage.into())),
        Named::BYOL(parameters) => {
            let predictor = byol::Predictor::draw(stage, parameters.predictor, device);
            Box::new(byol::BYOL::new(draw(stage, device), predictor, parameters, stage.into()))
        }
        Named::SwAV(parameters) => {
            let prototypes = swav::draw(stage, parameters.prototypes, device);
            Box::new(swav::SwAV::new(draw(stage, device), prototypes, parameters, stage.into()))
        }
    })
}

/// A drawn encoder.
fn draw(stage: &Pretrain, device: Device) -> Network {
    Shape::from(&stage.model).draw(stage.seed, Kind::Float, device)
}
