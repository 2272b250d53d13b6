//! The pipeline files in the repository.

use crate::project::{Project, printed};
use caco_pipeline::{
    code::Codebase,
    kind::Registry,
    pipeline::{Overlay, Pipeline, Stage},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(caco_kinds::all(), Codebase::default()));

/// The folder of the pipelines in the repository.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

/// The pipeline files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "ron"));
    found.sort();
    found
}

#[test]
fn every_file_is_valid_and_its_header_says_how_to_run_it() {
    let files = files(&folder());
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let mut command = Command::new(crate::project::caco_path());
        let printed = printed(command.arg("check").arg(&file).output().unwrap());
        assert_eq!(printed.code, 0, "{}\n{}", file.display(), printed.err);
        let head = fs::read_to_string(&file).unwrap();
        assert!(head.starts_with("// ") && head.contains("//   ") && head.contains("caco run"), "{}", file.display());
    }
}

#[test]
fn the_experiment_in_scripts_runs_confined() {
    let project = Project::new();
    for name in ["reviews.ron", "data/reviews.csv"] {
        project.write(name, &fs::read_to_string(folder().join("examples/reviews").join(name)).unwrap());
    }
    for entry in fs::read_dir(folder().join("examples/reviews/src")).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            let name = format!("src/{}", entry.file_name().display());
            project.write(&name, &fs::read_to_string(entry.path()).unwrap());
        }
    }
    project.ok(&["run", "reviews.ron"]);
    let metric = project.json(&["show", "evaluate", "--json"])["result"]["metrics"][0].clone();
    assert_eq!((metric["name"].as_str(), metric["split"].as_str()), (Some("accuracy"), Some("test")));
    assert!(metric["value"].as_f64().unwrap() > 0.7);
}

#[test]
fn gpus_are_allocated_by_number_and_to_one_run_at_a_time() {
    let project = Project::with(
        r#"(stages: {
            "a": command(shell: "echo $CUDA_VISIBLE_DEVICES > out; sleep 0.3", outputs: ["out"], run: (gpus: 1)),
            "b": command(shell: "echo $CUDA_VISIBLE_DEVICES > out; sleep 0.3; true", outputs: ["out"], run: (gpus: 1)),
        })"#,
    );
    let locks = tempfile::tempdir().unwrap();
    let run = |store: &str, gpus: &str| {
        let mut command = project.command(&["run", "p.ron", "--cache", store, "--jobs", "2", "--gpus", gpus]);
        command.env("TMPDIR", locks.path());
        command
    };
    let given = |store: &str, stage: &str| {
        let to = format!("{store}-{stage}");
        project.ok(&["get", "--pipeline", "p.ron", "--cache", store, stage, &to]);
        project.read(&to).trim().to_string()
    };
    assert!(run("one", "3,5").output().unwrap().status.success());
    let mut both = [given("one", "a"), given("one", "b")];
    both.sort();
    assert_eq!(both, ["3", "5"]);
    // Two runs share one GPU: each stage waits until it is free.
    let mut first = run("two", "0").spawn().unwrap();
    let second = run("three", "0").output().unwrap();
    assert!(first.wait().unwrap().success() && second.status.success());
    assert_eq!(given("three", "b"), "0");
}

#[test]
fn what_the_keys_of_the_experiment_hold_is_frozen() {
    // Results in users' stores are found by these parameters. A change here is a line in the changelog.
    let mut shown = vec![];
    for name in ["tiny.ron", "baselines.ron", "imagenet.ron"] {
        let path = folder().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let pipeline = Pipeline::parse(&path, text, &Overlay::default(), &REGISTRY).unwrap_or_else(|e| panic!("{e}"));
        let line = |stage: &Stage| format!("{} {} {}\n", stage.name, stage.kind, stage.key_parameters);
        let mut lines: Vec<String> = pipeline.stages.iter().map(line).collect();
        lines.sort();
        shown.push(format!("{name}: {} stages, {}", lines.len(), blake3::hash(lines.concat().as_bytes()).to_hex()));
        shown.extend(
            lines
                .into_iter()
                .filter(|line| line.starts_with("pretrain/") && !line.contains("-1 ") && !line.contains("-2 ")),
        );
    }
    insta::assert_snapshot!(shown.join("\n"));
}
