//! `caco audit --rerun --locate`: where a training and its rerun part.

use crate::project::{Project, printed};

const TRAINING: &str = r#"(
    common: (model: (arch: ResNet18, width: 4, hidden: 16, dim: 8), views: SingleCrop(size: 16), batch: 16),
    stages: {
        "images": synthesize(classes: 2, train: 64, test: 9, size: 32),
        "index": index(root: Stage("images/train")),
        "bank": init_bank(index: "index", bank_size: 48, run: (step_digests: true)),
        "plain": init_bank(index: "index", bank_size: 32),
    },
)"#;

#[test]
fn the_first_step_and_tensor_that_differ_are_named() {
    let project = Project::with(TRAINING);
    project.ok(&["run", "p.ron", "bank", "--device", "cpu"]);
    let same = project.ok(&["audit", "bank", "--rerun", "--locate", "--device", "cpu"]).out;
    assert!(
        same.contains("✓ bank: run again, identical bytes\n  the digests of all 3 steps are the same too\n"),
        "{same}"
    );
    // The kernels of another processor round otherwise.
    let mut other = project.command(&["audit", "bank", "--rerun", "--locate", "--device", "cpu", "--json"]);
    let other =
        printed(other.envs([("ONEDNN_MAX_CPU_ISA", "SSE41"), ("ATEN_CPU_CAPABILITY", "default")]).output().unwrap());
    let audited: serde_json::Value = serde_json::from_str(&other.out).expect(&other.err);
    let again = &audited["rerun"][0];
    if again["verdict"] == "identical" {
        assert_eq!(again["located"]["located"], "nowhere", "this processor has no other kernels: {again}");
        return;
    }
    let located = &again["located"];
    assert_eq!((located["located"].as_str(), located["step"].as_u64()), (Some("step"), Some(1)), "{again}");
    assert!(located["tensor"].as_str().is_some_and(|name| name.contains('.')), "{again}");
    assert_ne!(located["first"], located["second"]);
    assert!(located["differing"].as_u64().unwrap() <= located["of"].as_u64().unwrap());
}

#[test]
fn a_result_without_digests_names_the_command_that_keeps_them() {
    let project = Project::with(TRAINING);
    project.ok(&["run", "p.ron", "plain", "--device", "cpu"]);
    let key = project.json(&["show", "plain", "--json"])["result"]["key"].clone();
    let audit = project.ok(&["audit", "plain", "--rerun", "--locate", "--device", "cpu"]).out;
    assert!(audit.contains("the first result kept no digests of its steps"), "{audit}");
    let command = audit.lines().map(str::trim).find(|line| line.starts_with("caco run")).expect(&audit);
    let mut shell = project.program("bash");
    let path = crate::project::caco_path().parent().unwrap().display().to_string();
    shell.args(["-c", &format!("PATH={path}:$PATH {command} --device cpu")]);
    let run = printed(shell.output().unwrap());
    assert_eq!(run.code, 0, "{command}\n{}", run.err);
    // The same key and bytes, now with digests.
    assert_eq!(project.json(&["show", "plain", "--json"])["result"]["key"], key);
    let audit = project.ok(&["audit", "plain", "--rerun", "--locate", "--device", "cpu"]).out;
    assert!(audit.contains("the digests of all 2 steps are the same too"), "{audit}");
}

#[test]
fn only_trainings_have_steps() {
    let project = Project::with(TRAINING);
    project.ok(&["run", "p.ron", "index"]);
    let audit = project.caco(&["audit", "index", "--rerun", "--locate"]);
    assert!(audit.code == 1 && audit.err.contains("stage 'index' of kind 'index' is no training"), "{}", audit.err);
    project
        .edit("index(root: Stage(\"images/train\")", "index(root: Stage(\"images/train\"), run: (step_digests: true)");
    let check = project.caco(&["check", "p.ron"]);
    assert_eq!(check.code, 1);
    assert!(
        check.err.contains("run.step_digests is for trainings, and a stage of kind 'index' is none"),
        "{}",
        check.err
    );
    assert!(check.err.contains("p.ron:5:") && check.err.contains("kind init_bank, pretrain"), "{}", check.err);
    let alone = project.caco(&["audit", "index", "--locate"]);
    assert!(alone.code == 2 && alone.err.contains("--rerun"), "{}", alone.err);
}
