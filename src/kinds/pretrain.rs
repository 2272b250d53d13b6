use super::{determinism::check_shards, *};

/// Contrastive pre-training by CaCo (Wang et al., TPAMI 2023), or one of the variants it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// An index stage: the training images.
    pub index: String,
    /// The bank initialisation to start from.
    pub init: String,
    /// The network; must be that of the bank initialisation.
    pub model: Model,
    /// The random views; more than two for multi-crop.
    pub views: Views,
    /// How JPEG files are decoded.
    #[serde(default)]
    pub decode: Decode,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images per step.
    pub batch: u32,
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
    #[serde(default = "super::init_bank::momentum")]
    pub bank_momentum: f64,
    /// Learning rate of the encoder per 256 images.
    #[serde(default = "super::init_bank::rate")]
    pub rate: f64,
    /// Epochs of linear warm-up.
    #[serde(default = "warmup")]
    pub warmup: u32,
    /// Initial momentum of the key encoder; it rises to 1 by a cosine schedule.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
    /// LARS momentum.
    #[serde(default = "super::init_bank::momentum")]
    pub momentum: f64,
    /// LARS weight decay.
    #[serde(default = "super::init_bank::weight_decay")]
    pub weight_decay: f64,
    /// LARS trust coefficient.
    #[serde(default = "super::init_bank::trust")]
    pub trust: f64,
    /// Which activations are kept for the backward pass. `Recompute` takes less memory and more time, with the same
    /// result; unlike `accumulate`, it gives batch norm the whole batch. Not part of the key.
    #[serde(default)]
    pub activations: Activations,
    /// Number of equal parts in which a batch passes through the encoders, to save memory. Batch norm then sees one
    /// part at a time.
    #[serde(default = "one")]
    pub accumulate: u32,
    /// Floating-point precision of the encoders.
    #[serde(default)]
    pub precision: Precision,
    /// Number of shards into which a batch is cut: a power of two. Sums over shards are taken in a fixed order, so that
    /// no bit depends on the threads that compute them.
    #[serde(default = "one")]
    pub shards: u32,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// What to do if the encoder collapses, so that all queries point in the same direction.
    #[serde(default)]
    pub collapse: Collapse,
    /// kNN accuracy during training, for monitoring only.
    #[serde(default)]
    pub monitor: Option<Monitor>,
    /// Seed of the order and the views.
    #[serde(default)]
    pub seed: u64,
}

/// kNN accuracy during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// An index stage: the images to classify.
    pub index: String,
    /// Interval in epochs.
    pub every: u32,
    /// Fraction of the training images that vote.
    #[serde(default = "super::knn::share")]
    pub share: f64,
    /// Number of neighbours.
    #[serde(default = "super::knn::k")]
    pub k: u32,
    /// Votes are weighted by exp(cosine / temperature).
    #[serde(default = "super::knn::temperature")]
    pub temperature: f64,
}

/// What to do if the encoder has collapsed: it outputs the same for all images, and training makes no more progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Collapse {
    /// Training fails with an error that names the step.
    #[default]
    Stop,
    /// Training continues to the end, for an ablation in which a collapse is a finding.
    Continue,
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

fn one() -> u32 {
    1
}
fn temperature() -> f64 {
    0.08
}
fn bank_rate() -> f64 {
    3.0
}
fn warmup() -> u32 {
    10
}
fn key_momentum() -> f64 {
    0.99
}

impl Kind for Pretrain {
    const NAME: &'static str = "pretrain";
    const VERSION: u32 = 3;
    const DEVICE: bool = true;
    const TRAINING: bool = true;
    const WARN: Option<Warn<Self>> = Some(Pretrain::warn);
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] = &[
        ("accumulate", "1"),
        ("collapse", r#""Stop""#),
        ("decode", r#""Full""#),
        ("determinism", r#""Fast""#),
        ("shards", "1"),
    ];
    const NOT_HASHED: &'static [&'static str] = &["activations"];
    const OUTPUTS: &'static [Output] =
        &[output("encoder", "encoder.safetensors"), output("bank", "bank.safetensors"), output("curve", "curve.jsonl")];
    const SOURCES: &'static [&'static str] = &["index", "init", "monitor.index"];

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::output("init", &self.init, "state")];
        inputs.extend(Input::index("index", &self.index));
        if let Some(monitor) = &self.monitor {
            inputs.extend(Input::index("monitor", &monitor.index));
        }
        inputs
    }

    fn check(&self) -> Result<(), Complaint> {
        self.model.check()?;
        self.views.check()?;
        ensure(self.epochs >= 1, "epochs", "is 0; give at least 1")?;
        ensure(self.batch >= 2, "batch", format!("is {}; batch norm needs at least 2", self.batch))?;
        let parts = format!(
            "is {}; a batch of {} needs a divisor that leaves parts of at least 2",
            self.accumulate, self.batch
        );
        let fits =
            self.accumulate >= 1 && self.batch.is_multiple_of(self.accumulate) && self.batch / self.accumulate >= 2;
        ensure(fits, "accumulate", parts)?;
        check_shards(self.shards, self.batch / self.accumulate)?;
        self.determinism.check(self.precision)?;
        for (field, t) in [("temperature", self.temperature), ("bank_temperature", self.bank_temperature)] {
            ensure(t > 0.0 && t.is_finite(), field, format!("is {t}; give a positive number"))?;
        }
        for (field, m) in
            [("momentum", self.momentum), ("bank_momentum", self.bank_momentum), ("key_momentum", self.key_momentum)]
        {
            ensure((0.0..=1.0).contains(&m), field, format!("is {m}; give 0 to 1"))?;
        }
        for (field, r) in [
            ("rate", self.rate),
            ("bank_rate", self.bank_rate),
            ("weight_decay", self.weight_decay),
            ("trust", self.trust),
        ] {
            ensure(r >= 0.0 && r.is_finite(), field, format!("is {r}; give 0 or more"))?;
        }
        let Some(monitor) = &self.monitor else { return Ok(()) };
        ensure(monitor.every >= 1, "monitor.every", "is 0; give at least 1")?;
        ensure(monitor.k >= 1, "monitor.k", "is 0; give at least 1")?;
        let positive = monitor.temperature > 0.0 && monitor.temperature.is_finite();
        ensure(positive, "monitor.temperature", format!("is {}; give a positive number", monitor.temperature))?;
        ensure(
            monitor.share > 0.0 && monitor.share <= 1.0,
            "monitor.share",
            format!("is {}; give 0 to 1", monitor.share),
        )
    }

    fn is_portable(&self) -> bool {
        self.determinism == Determinism::Portable
    }

    fn parameters(&self) -> serde_json::Value {
        let mut value = hashed(self);
        value["views"] = serde_json::to_value(self.views.list()).expect("views are plain data");
        self.model.rekey(&mut value);
        value
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

impl Pretrain {
    fn warn(&self, upstream: &Upstream) -> Vec<Caution> {
        let init = upstream("init").and_then(|init| serde_json::from_value::<InitBank>(init).ok());
        self.rate_out_of_scale(init.map(|init| init.bank_size)).into_iter().collect()
    }

    /// A query moves its positive, a column of the bank, by about η_b / (N · τ_b) of the column's length in a step, and
    /// momentum m repeats that 1 / (1 − m) times. In the paper this is 0.37. A column that moves by more than its length
    /// points elsewhere before it was ever a positive again: the loss rises towards that of chance.
    fn rate_out_of_scale(&self, bank_size: Option<u32>) -> Option<Caution> {
        if !matches!(self.objective, Objective::CaCo | Objective::CooperativeOnly) {
            return None;
        }
        let rest = 1.0 - self.bank_momentum;
        let moves =
            |rate: f64, momentum: f64, batch: f64, temperature: f64| rate / ((1.0 - momentum) * batch * temperature);
        let (batch, temperature) = (f64::from(self.batch), self.bank_temperature);
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
            field: "bank_rate".into(),
            message: format!(
                "the bank moves faster than its queries: bank_rate / ((1 − bank_momentum) · batch · bank_temperature) is \
                 {rate} / ({momentum} · {} · {temperature}) = {here}, in the paper {there}",
                self.batch
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

    fn pretrain(changes: &str) -> Pretrain {
        let base = r#""index": "i", "init": "b", "epochs": 1, "model": {"arch": "ResNet18"},
            "views": {"SingleCrop": {"size": 32}}"#;
        serde_json::from_str(&format!("{{{base}, {changes}}}")).unwrap()
    }

    fn help(changes: &str, bank_size: u32) -> Option<String> {
        pretrain(changes).rate_out_of_scale(Some(bank_size)).map(|caution| caution.help)
    }

    #[test]
    fn the_papers_rate_is_in_scale_for_its_batch_and_not_for_a_small_one() {
        assert_eq!(help(r#""batch": 1024"#, 65536), None);
        let small = pretrain(r#""batch": 64"#).rate_out_of_scale(Some(1024)).unwrap();
        assert_eq!(small.help, "set `bank_rate: 0.047`: 3 · 1024 / 65536, the paper's rate for a bank of 1024");
        assert!(small.message.contains("3 / (0.1 · 64 · 0.08) = 5.9, in the paper 0.37"), "{}", small.message);
    }

    #[test]
    fn the_rate_that_is_named_is_in_scale() {
        // The bank's share alone would be the same rate again.
        assert_eq!(help(r#""batch": 64"#, 65536).unwrap(), "set `bank_rate: 0.19`: with which it is 0.37");
        for (batch, size) in [(64, 1024), (64, 65536), (8, 48), (128, 4096), (16, 300_000)] {
            let words = help(&format!(r#""batch": {batch}"#), size).unwrap();
            let rate = words.split(['`', ' ']).nth(3).unwrap();
            assert_eq!(help(&format!(r#""batch": {batch}, "bank_rate": {rate}"#), size), None, "{words}");
        }
    }

    #[test]
    fn only_a_bank_whose_positives_are_trained_is_warned_of() {
        for objective in ["FixedBank", "AdversarialOnly", "KeyPositive", "Queue"] {
            assert_eq!(help(&format!(r#""batch": 64, "objective": "{objective}""#), 1024), None);
        }
        assert!(help(r#""batch": 64, "objective": "CooperativeOnly""#, 1024).is_some());
    }

    #[test]
    fn momentum_and_temperature_count() {
        assert_eq!(help(r#""batch": 64, "bank_momentum": 0"#, 1024), None);
        assert_eq!(help(r#""batch": 64, "bank_temperature": 0.5"#, 1024), None);
    }

    #[test]
    fn without_a_known_bank_the_batch_decides() {
        let caution = pretrain(r#""batch": 64"#).rate_out_of_scale(None).unwrap();
        assert_eq!(caution.help, "set `bank_rate: 0.19`: with which it is 0.37");
    }
}
