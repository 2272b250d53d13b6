use super::{
    Optimizer, Parameters, Published, check_momentum, check_rate, check_size, check_temperature, check_two_views,
    within,
};
use crate::{Complaint, Pretrain, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AdCo: queries are compared with the key of the other view and with a bank of negatives that is trained against the
/// encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdCo {
    /// The bank initialisation to start from, as in the paper. Without one, encoder and bank are drawn.
    #[serde(default)]
    pub init: Option<String>,
    /// Columns K of the bank, if it is drawn; by default 65,536.
    #[serde(default)]
    pub bank_size: Option<u32>,
    /// Temperature τ of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Temperature τ_b of the bank's update.
    #[serde(default = "bank_temperature")]
    pub bank_temperature: f64,
    /// Learning rate of the bank.
    #[serde(default = "bank_rate")]
    pub bank_rate: f64,
    /// Momentum of the bank's update.
    #[serde(default = "bank_momentum")]
    pub bank_momentum: f64,
    /// Momentum of the key encoder.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
    /// Whether queries of the second view are compared with keys of the first too. Needed for multi-crop.
    #[serde(default)]
    pub symmetric: bool,
}

fn temperature() -> f64 {
    0.12
}
fn bank_temperature() -> f64 {
    0.02
}
fn bank_rate() -> f64 {
    3.0
}
fn bank_momentum() -> f64 {
    0.9
}
fn key_momentum() -> f64 {
    0.999
}

impl AdCo {
    /// Columns of the bank if it is drawn.
    pub fn columns(&self) -> Option<u32> {
        self.init.is_none().then(|| self.bank_size.unwrap_or_else(crate::init_bank::bank_size))
    }
}

impl Parameters for AdCo {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Sgd, rate: 0.03, falls: f64::INFINITY, warmup: 0, weight_decay: 1e-4 }
    }

    fn check(&self, training: &Pretrain) -> Result<(), Complaint> {
        let message = "is given beside `init`, whose bank has a size of its own; leave one of them out";
        ensure(self.init.is_none() || self.bank_size.is_none(), &within("bank_size"), message)?;
        self.columns().map_or(Ok(()), |size| check_size("bank_size", size))?;
        check_temperature("temperature", self.temperature)?;
        check_temperature("bank_temperature", self.bank_temperature)?;
        check_momentum("bank_momentum", self.bank_momentum)?;
        check_momentum("key_momentum", self.key_momentum)?;
        check_rate("bank_rate", self.bank_rate)?;
        if self.symmetric { Ok(()) } else { check_two_views(training, "AdCo without `symmetric: true`") }
    }

    fn init(&self) -> Option<&str> {
        self.init.as_deref()
    }

    fn has_bank(&self) -> bool {
        true
    }
}
