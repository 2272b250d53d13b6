//! What a tensor stage inherits of the caller's environment, and what its record says of it.

use crate::{
    experiment::{SMALL, tiny},
    project::{Printed, Project, printed},
    training::digests,
};

/// A stage that computes with tensors in less than a second, and what it reads.
const STAGE: &str = "bank/short";

/// Runs the stage with these variables set, and with kernels that depend on them.
fn run(project: &Project, variables: &[(&str, &str)]) -> Printed {
    let mut command = project.command(&["run", "p.ron", STAGE]);
    SMALL.iter().chain(&["common.determinism=Fast"]).for_each(|set| _ = command.args(["--set", set]));
    let run = printed(command.envs(variables.iter().copied()).output().unwrap());
    assert_eq!(run.code, 0, "{}", run.err);
    run
}

#[test]
fn what_chooses_kernels_is_handed_on_and_noted() {
    let project = tiny();
    let default = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
    run(&project, &[("ONEDNN_MAX_CPU_ISA", "SSE41"), ("ONEDNN_VERBOSE", "1"), ("KMP_BLOCKTIME", "0"), default]);
    let log = project.ok(&["log", STAGE]).out;
    assert!(log.contains("isa:Intel SSE4.1\n"), "{log}");
    let environment = project.json(&["show", STAGE, "--json"])["result"]["made"]["conditions"]["environment"].clone();
    for (name, value) in [("ONEDNN_MAX_CPU_ISA", "SSE41"), ("ONEDNN_VERBOSE", "1"), ("KMP_BLOCKTIME", "0")] {
        assert_eq!(environment[name], value, "{environment}");
    }
    // What it would have had without the caller is not worth a note.
    for name in ["PATH", "HOME", default.0] {
        assert!(environment.get(name).is_none(), "{environment}");
    }
    let shown = project.ok(&["show", STAGE]).out;
    assert!(shown.contains(" ONEDNN_MAX_CPU_ISA=SSE41\n"), "{shown}");
    let audit = project.ok(&["audit", STAGE]).out;
    assert!(audit.contains("△ environment: it ran with ONEDNN_MAX_CPU_ISA=SSE41, which chooses kernels\n"), "{audit}");
}

#[test]
fn neither_precision_nor_threads_are_the_callers() {
    let (plain, other) = (tiny(), tiny());
    let cleared = [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("DNNL_DEFAULT_FPMATH_MODE", "BF16"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("MKL_DYNAMIC", "TRUE"),
        ("MKL_NUM_THREADS", "1"),
        ("OMP_NUM_THREADS", "1"),
        ("OMP_THREAD_LIMIT", "1"),
    ];
    run(&plain, &[]);
    run(&other, &[&cleared[..], &[("ONEDNN_VERBOSE", "1")]].concat());
    assert_eq!(digests(&plain, STAGE), digests(&other, STAGE));
    let log = other.ok(&["log", STAGE]).out;
    assert!(log.contains("onednn_verbose") && !log.contains("fpmath:bf16"), "{log}");
    let made = other.json(&["show", STAGE, "--json"])["result"]["made"].clone();
    for (name, _) in cleared {
        assert!(made["conditions"]["environment"].get(name).is_none(), "{made}");
    }
}

#[test]
fn a_rerun_with_other_kernels_is_one_of_another_class() {
    let project = tiny();
    run(&project, &[("ONEDNN_MAX_CPU_ISA", "SSE41")]);
    let again = project.caco(&["audit", STAGE, "--rerun"]);
    // The kernels of two CPUs may give the same bits.
    let is_identical = again.out.contains("run again, identical bytes");
    assert!(is_identical || again.out.contains("ONEDNN_MAX_CPU_ISA SSE41 →"), "{}{}", again.out, again.err);
}
