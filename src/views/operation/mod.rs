//! The operations of a view. Each is one file: its parameters, what it draws, and what it does to the pixels.

mod crop;

use super::canvas::Canvas;
use caco_measure::rng::Rng;
use caco_pipeline::kind::{
    Complaint, ensure,
    tagged::{self, Tagged, parameters},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use crop::{Crop, Cut};

/// A kind of operation: the parameters that a pipeline file gives it.
pub trait Kind {
    /// What it draws for one view of one image.
    type Drawn;

    /// Checks ranges. The field of a complaint is that of the operation.
    fn check(&self) -> Result<(), Complaint>;

    /// Draws for a view of `size` × `size` pixels, from a stream that no other operation uses. `None` leaves the view as
    /// it is.
    fn draw(&self, size: usize, rng: &mut Rng) -> Option<Self::Drawn>;

    /// Does to the view what was drawn.
    fn apply(drawn: &Self::Drawn, canvas: &mut Canvas);
}

/// Declares the kinds of operations. A module's name is that of its stream of random numbers. rustfmt does not follow
/// modules that a macro declares: `make check` names their files to it.
macro_rules! operations {
    ($($module:ident::$kind:ident,)*) => {
        $(mod $module; pub use $module::$kind;)*

        /// An operation of a view, after the crop.
        #[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
        pub enum Operation {
            $(#[allow(missing_docs)] $kind($kind),)*
        }

        /// What an operation draws for one view of one image.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Step {
            $(#[allow(missing_docs)] $kind(<$kind as Kind>::Drawn),)*
        }

        const KINDS: &[&str] = &[$(stringify!($kind)),*];

        impl Operation {
            /// Its kind, as in a pipeline file.
            pub(super) fn kind(&self) -> &'static str {
                match self { $(Operation::$kind(_) => stringify!($kind),)* }
            }

            /// The name of its stream of random numbers.
            pub(super) fn stream(&self) -> &'static str {
                match self { $(Operation::$kind(_) => stringify!($module),)* }
            }

            pub(super) fn check(&self) -> Result<(), Complaint> {
                match self { $(Operation::$kind(operation) => operation.check(),)* }
            }

            pub(super) fn draw(&self, size: usize, rng: &mut Rng) -> Option<Step> {
                match self { $(Operation::$kind(operation) => operation.draw(size, rng).map(Step::$kind),)* }
            }

            /// Reads the parameters of the kind of this name.
            fn of_kind<'de, A: de::VariantAccess<'de>>(kind: &str, body: A) -> Result<Operation, A::Error> {
                $(if kind == stringify!($kind) { return Ok(Operation::$kind(parameters(body)?)); })*
                Err(de::Error::unknown_variant(kind, KINDS))
            }
        }

        impl Step {
            /// The operation that draws it, in lower case.
            pub fn name(&self) -> &'static str {
                match self { $(Step::$kind(_) => stringify!($module),)* }
            }

            pub(super) fn apply(&self, canvas: &mut Canvas) {
                match self { $(Step::$kind(drawn) => <$kind as Kind>::apply(drawn, canvas),)* }
            }
        }
    };
}

operations! {
    jitter::Jitter,
    grey::Grey,
    blur::Blur,
    solarize::Solarize,
    flip::Flip,
    rand_augment::RandAugment,
}

fn probability(p: f64) -> Result<(), Complaint> {
    ensure((0.0..=1.0).contains(&p), "p", format!("is {p}; a probability is 0 to 1"))
}

const EXPECTED: &str = "an operation, such as Crop(…) or Flip(…)";

/// The first operation of a view, which decides its size.
#[derive(Serialize, JsonSchema)]
pub(super) enum First {
    Crop(Crop),
}

impl<'de> Tagged<'de> for First {
    const EXPECTED: &'static str = EXPECTED;

    fn read<A: de::VariantAccess<'de>>(kind: &str, body: A) -> Result<First, A::Error> {
        match kind {
            "Crop" => Ok(First::Crop(parameters(body)?)),
            other => Err(de::Error::custom(format!(
                "a view begins with {other}, but must begin with a Crop, which decides its size\nhelp: write \
                 [Crop(size: 224, scale: (0.2, 1.0)), {other}(…), …]"
            ))),
        }
    }
}

impl<'de> Tagged<'de> for Operation {
    const EXPECTED: &'static str = EXPECTED;

    fn read<A: de::VariantAccess<'de>>(kind: &str, body: A) -> Result<Operation, A::Error> {
        match kind {
            "Crop" => {
                Err(de::Error::custom("a view has a second Crop\nhelp: only the first operation of a view is a Crop"))
            }
            _ => Operation::of_kind(kind, body),
        }
    }
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<First, D::Error> {
        tagged::deserialize(deserializer, "First", &["Crop"])
    }
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operation, D::Error> {
        tagged::deserialize(deserializer, "Operation", KINDS)
    }
}
