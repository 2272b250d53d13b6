use super::{determinism::check_shards, *};

/// Fills the bank with keys in one partial pass while training the encoders ("bank initialisation"). All pre-trainings
/// with the same batch, bank size and views can share it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitBank {
    /// An index stage: the training images.
    pub index: String,
    /// The network.
    pub model: Model,
    /// The random views; only the first two are used here.
    pub views: Views,
    /// How JPEG files are decoded.
    #[serde(default)]
    pub decode: Decode,
    /// Images per step.
    pub batch: u32,
    /// Columns K of the bank.
    #[serde(default = "bank_size")]
    pub bank_size: u32,
    /// Learning rate per 256 images.
    #[serde(default = "rate")]
    pub rate: f64,
    /// Temperature of the loss.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Momentum of the key encoder.
    #[serde(default = "key_momentum")]
    pub key_momentum: f64,
    /// LARS momentum.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// LARS weight decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// LARS trust coefficient.
    #[serde(default = "trust")]
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
    /// no bit depends on the threads and processes that compute them.
    #[serde(default = "one")]
    pub shards: u32,
    /// On which machines the result has the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Seed of the weights, the bank, the order and the views.
    #[serde(default)]
    pub seed: u64,
}

pub(super) fn bank_size() -> u32 {
    65536
}
fn one() -> u32 {
    1
}
pub(super) fn rate() -> f64 {
    0.3
}
fn temperature() -> f64 {
    0.2
}
fn key_momentum() -> f64 {
    0.999
}
pub(super) fn momentum() -> f64 {
    0.9
}
pub(super) fn weight_decay() -> f64 {
    1.5e-6
}
pub(super) fn trust() -> f64 {
    0.001
}

impl Kind for InitBank {
    const NAME: &'static str = "init_bank";
    const VERSION: u32 = 3;
    const DEVICE: bool = true;
    const TRAINING: bool = true;
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const NOT_HASHED: &'static [&'static str] = &["activations"];
    const OUTPUTS: &'static [Output] = &[output("state", "state.safetensors")];
    const SOURCES: &'static [&'static str] = &["index"];

    fn inputs(&self) -> Vec<Input> {
        Input::index("index", &self.index).into()
    }

    fn check(&self) -> Result<(), Complaint> {
        self.model.check()?;
        self.views.check()?;
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
        ensure((2..=1 << 24).contains(&self.bank_size), "bank_size", format!("is {}; give 2 to 2^24", self.bank_size))?;
        ensure(self.temperature > 0.0, "temperature", format!("is {}; give a positive number", self.temperature))?;
        ensure(
            (0.0..=1.0).contains(&self.key_momentum),
            "key_momentum",
            format!("is {}; give 0 to 1", self.key_momentum),
        )?;
        ensure((0.0..1.0).contains(&self.momentum), "momentum", format!("is {}; give 0 to below 1", self.momentum))?;
        ensure(self.rate >= 0.0 && self.rate.is_finite(), "rate", format!("is {}; give 0 or more", self.rate))
    }

    fn is_portable(&self) -> bool {
        self.determinism == Determinism::Portable
    }

    fn most_processes(&self) -> u32 {
        self.shards
    }

    fn parameters(&self) -> serde_json::Value {
        // Only the two large views are used here, so the small ones must not change the key; nor must it matter whether
        // a preset or the equivalent list of views is given.
        let mut large = self.views.list();
        large.truncate(2);
        let mut value = hashed(self);
        value["views"] = serde_json::to_value(large).expect("views are plain data");
        self.model.rekey(&mut value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_pipeline::kind::Entry;

    /// The parameters in the key of a stage with these views.
    fn key(views: &str) -> Box<str> {
        let text = format!(r#"(index: "i", model: (arch: ResNet18), views: {views}, batch: 4)"#);
        (Entry::of::<InitBank>().read)(&text).ok().expect("a valid stage").key_parameters
    }

    #[test]
    fn the_key_holds_the_list_of_the_two_large_views() {
        let jitter = "Jitter(brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1, p: 0.8)";
        let crop = "Crop(size: 32, scale: (0.2, 1.0))";
        let first = format!("[{crop}, {jitter}, Grey(p: 0.2), Blur(p: 1.0), Flip(p: 0.5)]");
        let second = format!("[{crop}, {jitter}, Grey(p: 0.2), Blur(p: 0.1), Solarize(p: 0.2), Flip(p: 0.5)]");
        let preset = key("SingleCrop(size: 32)");
        assert_eq!(preset, key(&format!("Custom([{first}, {second}])")));
        assert_eq!(preset, key(&format!("Custom([{first}, {second}, [{crop}]])")));
        assert_ne!(preset, key(&format!("Custom([{first}, {first}])")));
    }
}
