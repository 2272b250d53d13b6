//! What a tensor stage inherits of the caller's environment. All of it is handed on, except what the stage's own parameters
//! and allocation decide; and what tensor libraries read is noted in the record of the result.
//!
//! | variables | handed on | why |
//! |---|---|---|
//! | [`THREADS`], `OMP_*` | no | The stage's cores decide the threads, and with them the order of sums. |
//! | [`PRECISION`] | no | They round float32 to fewer bits. Precision is a parameter of the stage, and part of its key. |
//! | [`KERNELS`] | yes, noted; not where results must be portable | They choose among kernels of one precision, as the CPU does. Some CPUs need them. |
//! | `RUST_BACKTRACE`, `RUST_LIB_BACKTRACE` | no | A worker's error is one line; a backtrace would hide it, as only the end of a log is shown. |
//! | those of [`DEFAULTS`] | yes, noted if other | They have a value of their own where the caller gives none. |
//! | all others of [`READ`] | yes, noted | They change the speed, the memory or the messages. |

use caco_pipeline::portable;
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
const KERNELS: [&str; 17] = [
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_MAX_CPU_ISA",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "GLIBC_TUNABLES",
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
const READ: [&str; 17] = [
    "ATEN_",
    "CUBLAS",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "FBGEMM_",
    "GLIBC_",
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

/// What a worker gets where the caller gives it none of these names; the first is the one that is set.
const DEFAULTS: [(&[&str], &str); 3] = [
    // cuBLAS is deterministic only with a workspace of fixed size, which it reads here.
    (&["CUBLAS_WORKSPACE_CONFIG"], ":4096:8"),
    // Views of several sizes, and smaller batches at the end of an epoch, would leave a GPU's memory in pieces that fit
    // nothing else. The second name is the older one.
    (&["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"], "expandable_segments:True"),
    // OpenMP's threads spin for milliseconds at every barrier by default. The loader's threads, and
    // whatever else runs on the machine, need those cores: beside one busy process on two cores, a bank
    // initialisation of pipelines/tiny.ron took 1.2 times as long with the default (three pairs, 1.16 to 1.26).
    (&["GOMP_SPINCOUNT"], "5000"),
];

/// The environment of a worker that computes with so many threads. If its results must be portable, each of its threads
/// computes on its own, with kernels that are the same on every machine.
pub fn of_worker(threads: u64, is_portable: bool) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> =
        inherited().filter(|(name, _)| !(is_portable && chooses_kernels(name))).collect();
    env.push(("OMP_NUM_THREADS".into(), if is_portable { 1 } else { threads }.to_string()));
    if is_portable {
        env.extend(portable::ENVIRONMENT.map(|(name, value)| (name.into(), value.into())));
    }
    for (names, value) in DEFAULTS {
        if !env.iter().any(|(name, _)| names.contains(&name.as_str())) {
            env.push((names[0].into(), value.into()));
        }
    }
    env
}

/// The variables that a tensor stage inherits. One that is not UTF-8 is left out.
fn inherited() -> impl Iterator<Item = (String, String)> {
    let text =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| is_inherited(name))
}

/// Those of a worker's environment that tensor libraries read, for the record of a result. Left out is what every worker
/// gets: the number of threads, which is recorded by itself, and the defaults, even where the caller set them; and the kernels of
/// portable results.
pub fn noted(env: &[(String, String)], is_portable: bool) -> BTreeMap<String, String> {
    let is_default = |name: &str, value: &str| {
        let of_all = DEFAULTS.iter().any(|(names, own)| names[0] == name && *own == value);
        of_all || is_portable && portable::ENVIRONMENT.contains(&(name, value))
    };
    let is_noted = |name: &str| is_inherited(name) && READ.iter().any(|start| name.starts_with(start));
    let noted = env.iter().filter(|(name, value)| is_noted(name) && !is_default(name, value));
    noted.cloned().collect()
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
    fn a_default_is_not_noted_whoever_set_it() {
        let env = |name: &str, value: &str| vec![(name.to_string(), value.to_string())];
        for (names, value) in DEFAULTS {
            assert!(noted(&env(names[0], value), false).is_empty(), "{names:?}");
            assert_eq!(noted(&env(names[0], "1"), false)[names[0]], "1");
        }
        for (name, value) in portable::ENVIRONMENT {
            assert!(noted(&env(name, value), true).is_empty() && !noted(&env(name, value), false).is_empty(), "{name}");
        }
        let left_out = [env("OMP_NUM_THREADS", "2"), env("PATH", "/bin")].concat();
        assert!(noted(&left_out, false).is_empty());
        let claimed = [env("CUDA_VISIBLE_DEVICES", "2,3"), env("CUDA_VISIBLE_DEVICES", "3")].concat();
        assert_eq!(noted(&claimed, false)["CUDA_VISIBLE_DEVICES"], "3");
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
