//! What a tensor stage inherits of the caller's environment. All of it is handed on, except what the stage's own parameters
//! and allocation decide; and what tensor libraries read is noted in the record of the result.
//!
//! | variables | handed on | why |
//! |---|---|---|
//! | [`THREADS`], `OMP_*` | no | The stage's cores decide the threads, and with them the order of sums. |
//! | [`PRECISION`] | no | They round float32 to fewer bits. Precision is a parameter of the stage, and part of its key. |
//! | [`KERNELS`] | yes, noted | They choose among kernels of one precision, as the CPU does. Some CPUs need them. |
//! | `RUST_BACKTRACE`, `RUST_LIB_BACKTRACE` | no | A worker's error is one line; a backtrace would hide it, as only the end of a log is shown. |
//! | all others of [`READ`] | yes, noted | They change the speed, the memory or the messages. |

use std::collections::BTreeMap;

/// The number of threads, besides `OMP_*`.
const THREADS: [&str; 6] = [
    "KMP_ALL_THREADS",
    "KMP_DEVICE_THREAD_LIMIT",
    "KMP_TEAMS_THREAD_LIMIT",
    "MKL_DOMAIN_NUM_THREADS",
    "MKL_DYNAMIC",
    "MKL_NUM_THREADS",
];

/// A lower precision than that of the tensors.
const PRECISION: [&str; 4] = [
    "DNNL_DEFAULT_FPMATH_MODE",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
];

/// Which kernels compute: part of the determinism class.
const KERNELS: [&str; 16] = [
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_MAX_CPU_ISA",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINEAR_FLATTEN_3D",
    "TORCH_MKLDNN_MATMUL_MIN_DIM",
    "TORCH_MKLDNN_MATMUL_MIN_SIZE",
];

/// How the names begin that tensor libraries, OpenMP and the dynamic linker read.
const READ: [&str; 16] = [
    "ATEN_",
    "CUBLAS",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "FBGEMM_",
    "GOMP_",
    "KMP_",
    "LD_",
    "MKL_",
    "NVIDIA_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "TORCH_",
];

/// The environment of stages whose results must not depend on the machine: what libtorch, MKL and oneDNN read to choose
/// among kernels. The worker demands these values.
const PORTABLE: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "COMPATIBLE"), ("ONEDNN_MAX_CPU_ISA", "AVX2")];

/// The variables that a tensor stage inherits. One that is not UTF-8 is left out. Where results must be portable,
/// [`PORTABLE`] replaces all that choose among kernels.
pub fn inherited(portable: bool) -> impl Iterator<Item = (String, String)> {
    let text =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let own = if portable { &PORTABLE[..] } else { &[] };
    let inherited = text.filter(move |(name, _)| is_inherited(name) && !(portable && chooses_kernels(name)));
    inherited.chain(own.iter().map(|(name, value)| (name.to_string(), value.to_string())))
}

/// Those among them that tensor libraries read, for the record of a result.
pub fn noted() -> BTreeMap<String, String> {
    inherited(false).filter(|(name, _)| READ.iter().any(|start| name.starts_with(start))).collect()
}

/// Whether a variable decides which kernels compute.
pub fn chooses_kernels(name: &str) -> bool {
    KERNELS.contains(&name)
}

fn is_inherited(name: &str) -> bool {
    const BACKTRACES: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];
    !name.starts_with("OMP_") && ![&THREADS[..], &PRECISION, &BACKTRACES].iter().any(|names| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_that_is_listed_begins_as_those_that_are_noted() {
        let noted = |name: &&&str| READ.iter().any(|start| name.starts_with(start));
        let listed = [&THREADS[..], &PRECISION, &KERNELS].concat();
        assert_eq!(listed.iter().find(|name| !noted(name)), None);
        assert!(KERNELS.iter().all(|name| is_inherited(name)));
    }

    #[test]
    fn what_the_machine_and_the_data_need_is_handed_on() {
        for name in
            ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "HOME", "PATH", "https_proxy", "CIFAR10", "KMP_BLOCKTIME"]
        {
            assert!(is_inherited(name), "{name}");
        }
        for name in ["OMP_NUM_THREADS", "OMP_DYNAMIC", "MKL_DYNAMIC", "ONEDNN_DEFAULT_FPMATH_MODE"] {
            assert!(!is_inherited(name), "{name}");
        }
    }
}
