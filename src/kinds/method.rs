//! The methods of pre-training: the parameters of each in a file of its own.

mod adco;
mod byol;
mod caco;
mod moco_v2;
mod simclr;
mod swav;

pub use adco::AdCo;
pub use byol::BYOL;
pub use caco::{CaCo, Objective};
pub use moco_v2::MoCoV2;
pub use simclr::SimCLR;
pub use swav::SwAV;

use super::{Caution, Complaint, Pretrain, Upstream, ensure};
use caco_pipeline::kind::tagged::{self, Tagged};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Declares the methods, each with the type of its parameters.
macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident,)*) => {
        /// The method of a pre-training.
        #[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
        pub enum Method {
            $($(#[$doc])* $method($method),)*
        }

        const NAMES: &[&str] = &[$(stringify!($method)),*];

        impl Method {
            /// What its parameters say of it.
            pub fn parameters(&self) -> &dyn Parameters {
                match self { $(Method::$method(parameters) => parameters,)* }
            }
        }

        impl<'de> Tagged<'de> for Method {
            const EXPECTED: &'static str = "a method, such as CaCo(init: \"bank\") or BYOL()";

            fn read<A: de::VariantAccess<'de>>(name: &str, body: A) -> Result<Self, A::Error> {
                $(if name == stringify!($method) { return tagged::parameters(body).map(Method::$method); })*
                Err(de::Error::unknown_variant(name, NAMES))
            }
        }
    };
}

methods! {
    /// Cooperative positives and adversarial negatives (Wang et al., TPAMI 2023, arXiv 2203.14370), and its ablations.
    CaCo,
    /// A queue of keys as negatives (He et al., CVPR 2020; Chen et al. 2020, arXiv 2003.04297).
    MoCoV2,
    /// Adversarial negatives (Hu et al., CVPR 2021, arXiv 2011.08435).
    AdCo,
    /// The other images of the batch as negatives (Chen et al., ICML 2020, arXiv 2002.05709).
    SimCLR,
    /// Prediction of a moving average of the encoder, without negatives (Grill et al., NeurIPS 2020, arXiv 2006.07733).
    BYOL,
    /// Prediction of the other view's cluster (Caron et al., NeurIPS 2020, arXiv 2006.09882).
    SwAV,
}

impl Method {
    /// The same with defaults written out that its parameters leave open.
    pub fn explicit(&self) -> Self {
        match self {
            Method::AdCo(parameters) => Method::AdCo(AdCo { bank_size: parameters.columns(), ..parameters.clone() }),
            other => other.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        tagged::deserialize(deserializer, "Method", NAMES)
    }
}

/// What the parameters of a method say of it.
pub trait Parameters {
    /// The published optimizer, for what a stage leaves out.
    fn published(&self) -> Published;
    /// Rejects values out of range, and trainings that the method has no step for.
    fn check(&self, training: &Pretrain) -> Result<(), Complaint>;
    /// The bank initialisation that it starts from, if any.
    fn init(&self) -> Option<&str> {
        None
    }
    /// Whether it compares queries with a bank, which is an output.
    fn has_bank(&self) -> bool {
        false
    }
    /// What to warn of, given the stages that the training reads.
    fn warn(&self, _training: &Pretrain, _upstream: &Upstream) -> Option<Caution> {
        None
    }
}

/// A published optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Learning rate per 256 images.
    pub rate: f64,
    /// The factor by which the rate falls, by a cosine schedule; infinite for a rate that falls to 0.
    pub falls: f64,
    /// Epochs of linear warm-up.
    pub warmup: u32,
    /// Weight decay.
    pub weight_decay: f64,
}

/// The optimizer of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Optimizer {
    /// Layer-wise adaptive rates (You et al. 2017): a weight moves by `trust` · rate of its norm. Biases and batch norm
    /// are neither scaled nor decayed.
    Lars,
    /// Stochastic gradient descent with momentum. All parameters are decayed.
    Sgd,
}

/// Rejects a temperature that is not positive.
fn check_temperature(field: &str, t: f64) -> Result<(), Complaint> {
    ensure(t > 0.0 && t.is_finite(), &within(field), format!("is {t}; give a positive number"))
}

/// Rejects a momentum outside 0 to 1.
fn check_momentum(field: &str, m: f64) -> Result<(), Complaint> {
    ensure((0.0..=1.0).contains(&m), &within(field), format!("is {m}; give 0 to 1"))
}

/// Rejects a negative rate.
fn check_rate(field: &str, r: f64) -> Result<(), Complaint> {
    ensure(r >= 0.0 && r.is_finite(), &within(field), format!("is {r}; give 0 or more"))
}

/// Rejects a number of columns or prototypes out of range.
fn check_size(field: &str, size: u32) -> Result<(), Complaint> {
    ensure((2..=1 << 24).contains(&size), &within(field), format!("is {size}; give 2 to 2^24"))
}

/// Rejects more than two views.
fn check_two_views(training: &Pretrain, method: &str) -> Result<(), Complaint> {
    let count = training.views.list().len();
    ensure(count == 2, "views", format!("has {count} views; {method} compares two"))
}

/// Rejects a batch in parts, for a method whose loss is one of the whole batch.
fn check_whole_batch(training: &Pretrain, method: &str) -> Result<(), Complaint> {
    let message = || {
        format!(
            "is {}; {method} takes a batch as a whole: to save memory, give `activations: Recompute`",
            training.accumulate
        )
    };
    ensure(training.accumulate == 1, "accumulate", message())
}

fn within(field: &str) -> String {
    format!("method.{field}")
}
