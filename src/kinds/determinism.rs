use super::{Complaint, Precision, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// On which machines a stage gives the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Determinism {
    /// On machines of one determinism class: the same instruction sets, CPU vendor or GPU, number of threads and version
    /// of libtorch.
    #[default]
    Fast,
    /// On every x86-64 CPU with AVX2 and FMA, with any number of cores and threads. Computes on the CPU, in F32 (F64 where a
    /// stage does). A batch is cut into shards that run side by side, each on one thread.
    Portable,
}

impl Determinism {
    /// Rejects a precision that it has no kernels for.
    pub fn check(self, precision: Precision) -> Result<(), Complaint> {
        let fits = self == Determinism::Fast || precision == Precision::F32;
        let other =
            "is Bf16, which every generation of CPUs rounds in another way; with determinism: Portable give F32";
        ensure(fits, "precision", other)
    }
}

/// Rejects a number of shards that a batch cannot be cut into. `part` is the batch, divided by `accumulate`.
pub(super) fn check_shards(shards: u32, part: u32) -> Result<(), Complaint> {
    let fits = shards.is_power_of_two() && part.is_multiple_of(shards);
    let message = format!(
        "is {shards}; give a power of two that divides the {part} images that pass through the encoders together"
    );
    ensure(fits, "shards", message)
}
