use super::{Optimizer, Parameters, Published, check_momentum, check_rate, check_temperature};
use crate::{Caution, Complaint, InitBank, Pretrain, Upstream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CaCo: queries are compared with a bank of columns that is trained with the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaCo {
    /// The bank initialisation to start from.
    pub init: String,
    /// How the bank is used.
    #[serde(default)]
    pub objective: Objective,
    /// Temperature τ of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Temperature τ_b of the bank's update.
    #[serde(default = "temperature")]
    pub bank_temperature: f64,
    /// Learning rate of the bank.
    #[serde(default = "bank_rate")]
    pub bank_rate: f64,
    /// If given, the bank's rate decays to this by a cosine schedule instead of staying constant after the warm-up.
    #[serde(default)]
    pub bank_rate_final: Option<f64>,
    /// Momentum of the bank's update.
    #[serde(default = "bank_momentum")]
    pub bank_momentum: f64,
    /// Initial momentum of the key encoder; it rises to 1 by a cosine schedule.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
}

/// How training uses the bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Objective {
    /// Cooperative positives and adversarial negatives: the paper's method.
    #[default]
    CaCo,
    /// The bank stays as initialised.
    FixedBank,
    /// Only the negatives are updated.
    AdversarialOnly,
    /// Only the positives are updated.
    CooperativeOnly,
    /// The other view's key is the positive and the bank is all adversarial negatives, as in AdCo (Hu et al. 2021).
    KeyPositive,
    /// The other view's key is the positive and the bank is a queue of keys, as in MoCo v2 (Chen et al. 2020).
    Queue,
}

fn temperature() -> f64 {
    paper::BANK_TEMPERATURE
}
fn bank_rate() -> f64 {
    paper::BANK_RATE
}
fn bank_momentum() -> f64 {
    paper::BANK_MOMENTUM
}
fn key_momentum() -> f64 {
    0.99
}

impl Parameters for CaCo {
    fn published(&self) -> Published {
        Published { optimizer: Optimizer::Lars, rate: 0.3, falls: 100.0, warmup: 10, weight_decay: 1.5e-6 }
    }

    fn check(&self, _training: &Pretrain) -> Result<(), Complaint> {
        check_temperature("temperature", self.temperature)?;
        check_temperature("bank_temperature", self.bank_temperature)?;
        check_momentum("bank_momentum", self.bank_momentum)?;
        check_momentum("key_momentum", self.key_momentum)?;
        check_rate("bank_rate", self.bank_rate)
    }

    fn init(&self) -> Option<&str> {
        Some(&self.init)
    }

    fn has_bank(&self) -> bool {
        true
    }

    fn warn(&self, training: &Pretrain, upstream: &Upstream) -> Option<Caution> {
        let init = upstream("init").and_then(|init| serde_json::from_value::<InitBank>(init).ok());
        self.rate_out_of_scale(training.batch, init.map(|init| init.bank_size))
    }
}

/// The setting of the paper's experiments on ImageNet.
mod paper {
    /// Images per step.
    pub const BATCH: f64 = 1024.0;
    /// Columns of the bank.
    pub const BANK_SIZE: f64 = 65536.0;
    /// Learning rate of the bank.
    pub const BANK_RATE: f64 = 3.0;
    /// Temperature of the bank's update.
    pub const BANK_TEMPERATURE: f64 = 0.08;
    /// Momentum of the bank's update.
    pub const BANK_MOMENTUM: f64 = 0.9;
}

impl CaCo {
    /// A query moves its positive, a column of the bank, by about η_b / (N · τ_b) of the column's length in a step, and
    /// momentum m repeats that 1 / (1 − m) times. In the paper this is 0.37. A column that moves by more than its length
    /// points elsewhere before it was ever a positive again: the loss rises towards that of chance.
    fn rate_out_of_scale(&self, images: u32, bank_size: Option<u32>) -> Option<Caution> {
        if !matches!(self.objective, Objective::CaCo | Objective::CooperativeOnly) {
            return None;
        }
        let rest = 1.0 - self.bank_momentum;
        let moves =
            |rate: f64, momentum: f64, batch: f64, temperature: f64| rate / ((1.0 - momentum) * batch * temperature);
        let (batch, temperature) = (f64::from(images), self.bank_temperature);
        let here = moves(self.bank_rate, self.bank_momentum, batch, temperature);
        if here <= 1.0 {
            return None;
        }
        let there = moves(paper::BANK_RATE, paper::BANK_MOMENTUM, paper::BATCH, paper::BANK_TEMPERATURE);
        // A negative moves by η_b / (K · τ_b), so a smaller bank takes a smaller rate; no bank takes one above this.
        let for_batch = there * rest * batch * temperature;
        let for_bank = bank_size.map_or(f64::INFINITY, |size| paper::BANK_RATE * f64::from(size) / paper::BANK_SIZE);
        let [rate, momentum, temperature, here, there, better] =
            [self.bank_rate, rest, temperature, here, there, for_batch.min(for_bank)].map(two_digits);
        let why = match bank_size.filter(|_| for_bank <= for_batch) {
            Some(size) => format!("3 · {size} / 65536, the paper's rate for a bank of {size}"),
            None => format!("with which it is {there}"),
        };
        Some(Caution {
            field: "method.bank_rate".into(),
            message: format!(
                "the bank moves faster than its queries: bank_rate / ((1 − bank_momentum) · batch · bank_temperature) is \
                 {rate} / ({momentum} · {images} · {temperature}) = {here}, in the paper {there}"
            ),
            help: format!("set `bank_rate: {better}`: {why}"),
        })
    }
}

/// A number with two significant digits.
fn two_digits(value: f64) -> String {
    format!("{value:.1e}").parse::<f64>().expect("a formatted number is one").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caco(changes: &str) -> CaCo {
        serde_json::from_str(&format!(r#"{{"init": "b"{changes}}}"#)).unwrap()
    }

    fn help(changes: &str, batch: u32, bank_size: u32) -> Option<String> {
        caco(changes).rate_out_of_scale(batch, Some(bank_size)).map(|caution| caution.help)
    }

    #[test]
    fn the_papers_rate_is_in_scale_for_its_batch_and_not_for_a_small_one() {
        assert_eq!(help("", 1024, 65536), None);
        let small = caco("").rate_out_of_scale(64, Some(1024)).unwrap();
        assert_eq!(small.help, "set `bank_rate: 0.047`: 3 · 1024 / 65536, the paper's rate for a bank of 1024");
        assert!(small.message.contains("3 / (0.1 · 64 · 0.08) = 5.9, in the paper 0.37"), "{}", small.message);
    }

    #[test]
    fn the_rate_that_is_named_is_in_scale() {
        // The bank's share alone would be the same rate again.
        assert_eq!(help("", 64, 65536).unwrap(), "set `bank_rate: 0.19`: with which it is 0.37");
        for (batch, size) in [(64, 1024), (64, 65536), (8, 48), (128, 4096), (16, 300_000)] {
            let words = help("", batch, size).unwrap();
            let rate = words.split(['`', ' ']).nth(3).unwrap();
            assert_eq!(help(&format!(r#", "bank_rate": {rate}"#), batch, size), None, "{words}");
        }
    }

    #[test]
    fn only_a_bank_whose_positives_are_trained_is_warned_of() {
        for objective in ["FixedBank", "AdversarialOnly", "KeyPositive", "Queue"] {
            assert_eq!(help(&format!(r#", "objective": "{objective}""#), 64, 1024), None);
        }
        assert!(help(r#", "objective": "CooperativeOnly""#, 64, 1024).is_some());
    }

    #[test]
    fn momentum_and_temperature_count() {
        assert_eq!(help(r#", "bank_momentum": 0"#, 64, 1024), None);
        assert_eq!(help(r#", "bank_temperature": 0.5"#, 64, 1024), None);
    }

    #[test]
    fn without_a_known_bank_the_batch_decides() {
        let caution = caco("").rate_out_of_scale(64, None).unwrap();
        assert_eq!(caution.help, "set `bank_rate: 0.19`: with which it is 0.37");
    }
}
