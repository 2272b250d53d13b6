use super::{determinism::check_shards, *};

/// Self-supervised pre-training by CaCo, or by one of the methods it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// An index stage: the training images.
    pub index: String,
    /// The method. What it leaves out has the published value.
    pub method: Method,
    /// The network; must be that of a bank initialisation to start from.
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
    /// The optimizer of the encoder; by default the one that the method published.
    #[serde(default)]
    pub optimizer: Option<Optimizer>,
    /// Learning rate of the encoder per 256 images; by default as published.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Epochs of linear warm-up; by default as published.
    #[serde(default)]
    pub warmup: Option<u32>,
    /// Momentum of the optimizer.
    #[serde(default = "super::init_bank::momentum")]
    pub momentum: f64,
    /// Weight decay; by default as published.
    #[serde(default)]
    pub weight_decay: Option<f64>,
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
    /// no bit depends on the threads and processes that compute them.
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
    /// Seed of the order, the views, and what the method draws.
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

fn one() -> u32 {
    1
}
impl Kind for Pretrain {
    const NAME: &'static str = "pretrain";
    const VERSION: u32 = 3;
    const DEVICE: bool = true;
    const TRAINING: bool = true;
    const WARN: Option<Warn<Self>> = Some(Pretrain::warn);
    const TOLERANCE: Tolerance = Tolerance::Metrics(Tolerance::FIGURES);
    const NOT_HASHED: &'static [&'static str] = &["activations"];
    const OUTPUTS: &'static [Output] =
        &[output("encoder", "encoder.safetensors"), output("bank", "bank.safetensors"), output("curve", "curve.jsonl")];
    const SOURCES: &'static [&'static str] = &["index", "method.*.init", "monitor.index"];

    fn inputs(&self) -> Vec<Input> {
        let init = self.method.parameters().init();
        let mut inputs: Vec<Input> = init.map(|init| Input::output("init", init, "state")).into_iter().collect();
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
        let recipe = self.recipe();
        ensure((0.0..=1.0).contains(&self.momentum), "momentum", format!("is {}; give 0 to 1", self.momentum))?;
        for (field, r) in [("rate", recipe.rate), ("weight_decay", recipe.weight_decay), ("trust", self.trust)] {
            ensure(r >= 0.0 && r.is_finite(), field, format!("is {r}; give 0 or more"))?;
        }
        self.method.parameters().check(self)?;
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

    fn most_processes(&self) -> u32 {
        self.shards
    }

    /// The bank is one only of methods that have a bank.
    fn outputs(&self) -> Vec<Output> {
        let has_bank = self.method.parameters().has_bank();
        Self::OUTPUTS.iter().filter(|output| has_bank || output.name != "bank").cloned().collect()
    }

    fn parameters(&self) -> serde_json::Value {
        let mut value = hashed(&self.explicit());
        value["views"] = serde_json::to_value(self.views.list()).expect("views are plain data");
        self.model.rekey(&mut value);
        value
    }
}

impl Pretrain {
    fn warn(&self, upstream: &Upstream) -> Vec<Caution> {
        self.method.parameters().warn(self, upstream).into_iter().collect()
    }

    /// The optimizer: what the stage gives, and what the method published for the rest.
    pub fn recipe(&self) -> Published {
        let published = self.method.parameters().published();
        Published {
            optimizer: self.optimizer.unwrap_or(published.optimizer),
            rate: self.rate.unwrap_or(published.rate),
            warmup: self.warmup.unwrap_or(published.warmup),
            weight_decay: self.weight_decay.unwrap_or(published.weight_decay),
            ..published
        }
    }

    /// The same with the recipe written out: it must not matter for the key whether it is.
    fn explicit(&self) -> Self {
        let Published { optimizer, rate, warmup, weight_decay, .. } = self.recipe();
        Pretrain {
            method: self.method.explicit(),
            // Only LARS reads it.
            trust: if optimizer == Optimizer::Lars { self.trust } else { 0.0 },
            optimizer: Some(optimizer),
            rate: Some(rate),
            warmup: Some(warmup),
            weight_decay: Some(weight_decay),
            ..self.clone()
        }
    }
}
