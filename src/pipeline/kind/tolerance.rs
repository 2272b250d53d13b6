//! How much a result of another determinism class (another CPU, GPU, libtorch, number of threads) may differ and still
//! count as the same. Within one class the bytes must be identical, and no tolerance applies.
//!
//! Training amplifies the last bits of its floats, so its weights are not compared, only its metrics. The limits are
//! declared, not measured: they are about what another seed changes on a small run; no two machines have been compared.

/// How a stage kind's outputs are compared across determinism classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Nothing may differ: the bytes do not depend on floats.
    Exact,
    /// Each tensor may differ by this norm of the difference, relative to its own norm.
    Tensors(f64),
    /// These metrics may differ by these absolute amounts; other outputs may differ.
    Metrics(&'static [(&'static str, f64)]),
}

impl Tolerance {
    /// Limits for accuracies and losses.
    pub const FIGURES: &'static [(&'static str, f64)] = &[
        ("top1", 0.02),
        ("top5", 0.02),
        ("mean_per_class", 0.02),
        ("map11", 0.02),
        ("knn", 0.05),
        ("loss", 0.1),
        ("positive", 0.05),
    ];
}
