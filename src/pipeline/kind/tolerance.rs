//! How far a result made under another determinism class (another CPU, GPU, libtorch, number of threads) may be from the
//! first and still count as the same. Within one class the promise is identical bytes, and none of this applies.
//!
//! A training amplifies the last bits of its floats, so its weights are not compared, only its metrics. The limits are
//! declared, about what another seed changes on a small run; no two machines have been compared.

/// What is compared of a stage kind's outputs across determinism classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Nothing may differ: no float decides the bytes.
    Exact,
    /// Each tensor, by the length of the difference relative to its own.
    Tensors(f64),
    /// These metrics, by the absolute difference; other outputs may differ.
    Metrics(&'static [(&'static str, f64)]),
}

impl Tolerance {
    /// Limits for shares of right answers, and losses.
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
