//! What stages are started with whose results must not depend on the machine.

/// Variables that libtorch, MKL and oneDNN read when they are first used, to choose among kernels. The runner sets them,
/// and the worker computes no portable result without them.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "COMPATIBLE"), ("ONEDNN_MAX_CPU_ISA", "AVX2")];
