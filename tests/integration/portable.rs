//! Portable results: the same bytes with any number of threads, and on every x86-64 CPU with AVX2.

use crate::{
    experiment::{SMALL, tiny},
    project::{Project, printed},
    training::digests,
};
use serde_json::Value;

/// The state after 20 steps on two views of each image, and on eight.
const DIGESTS: [(&str, &str); 2] = [
    ("single", "9eec548c793081c883d23a69b0777230b4365c1b36e797139d667594f11ea090"),
    ("multi", "a0e329f0ffc246e54a19942b9be772b59d6df09180e4a664187e93367d31c00c"),
];

fn step(project: &Project, views: &str, threads: &str) -> Value {
    let sizes = ["--arch", "resnet18", "--width", "16", "--size", "24", "--batch", "16", "--bank", "256"];
    let rest = ["--hidden", "64", "--dim", "32", "--determinism", "portable", "--shards", "4", "--steps", "18"];
    let given = ["--views", views, "--threads", threads, "--json"];
    project.json(&[&["bench", "step"], &sizes[..], &rest, &given].concat())
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the digests are those of x86-64")]
fn steps_have_the_same_bits_on_every_machine_with_any_number_of_threads() {
    let project = Project::new();
    for (views, digest) in DIGESTS {
        for threads in ["1", "2", "4"] {
            let report = step(&project, views, threads);
            assert_eq!(report["digest"], digest, "{views}, {threads} threads: {report}");
            assert_eq!(report["class"]["portable"], 1, "{report}");
        }
    }
}

#[test]
fn every_evaluation_has_the_same_bytes_whatever_cores_and_variables() {
    const STAGES: [&str; 5] =
        ["pretrain/multicrop", "linear/multicrop", "features/test/multicrop", "knn/multicrop", "transfer/multicrop"];
    // Channels that fill vectors, as in the kernels of batch norm.
    const LARGER: [&str; 3] = [
        "common.model=(arch: ResNet18, width: 16, stem: Cifar, hidden: 32, dim: 16)",
        "common.determinism=Portable",
        "common.shards=4",
    ];
    let run = |cores: &str, variables: &[(&str, &str)]| {
        let project = tiny();
        let mut command = project.command(&["run", "p.ron", "--jobs", cores]);
        command.args(STAGES).envs(variables.iter().copied());
        SMALL.iter().chain(&LARGER).for_each(|set| _ = command.args(["--set", set]));
        let run = printed(command.output().unwrap());
        assert_eq!(run.code, 0, "{}", run.err);
        project
    };
    let one = run("1", &[]);
    let other = run("2", &[("MKL_CBWR", "AVX2"), ("ATEN_CPU_CAPABILITY", "default"), ("DNNL_MAX_CPU_ISA", "SSE41")]);
    for stage in STAGES {
        assert_eq!(digests(&one, stage), digests(&other, stage), "{stage}");
        let made = other.json(&["show", stage, "--json"])["result"]["made"].clone();
        assert_eq!(made["determinism_class"]["portable"], 1, "{made}");
        assert!(made["determinism_class"].get("threads").is_none(), "{made}");
    }
}

#[test]
fn a_gpu_is_refused() {
    let project = Project::new();
    let run = project.caco(&["bench", "step", "--determinism", "portable", "--device", "cuda"]);
    assert!(run.code == 1 && run.err.contains("determinism: Portable computes on the CPU"), "{}", run.err);
}
