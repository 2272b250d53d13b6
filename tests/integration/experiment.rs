//! The embedded pipeline, reduced until it takes seconds: the same file, stages and code.

use crate::project::{Project, ran};
use caco_measure::metric::Metric;
use caco_measure::predictions::Predictions;
use std::path::Path;

/// The settings that make `pipelines/tiny.ron` small.
pub const SMALL: [&str; 11] = [
    "common.model=(arch: ResNet18, width: 4, stem: Cifar, hidden: 16, dim: 8)",
    "common.batch=16",
    "common.bank_size=48",
    "shapes.train=64",
    "shapes.test=32",
    "glyphs.train=48",
    "glyphs.test=24",
    "pretrain.epochs=1",
    "linear.epochs=1",
    "transfer.strengths=2",
    "pretrain.warmup=0",
];

pub fn tiny() -> Project {
    let project = Project::new();
    for (file, copy) in [("tiny.ron", "p.ron"), ("tiny-table.json", "pipelines/tiny-table.json")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(file);
        project.write(copy, &std::fs::read_to_string(file).unwrap());
    }
    project
}

pub fn run(project: &Project, set: &[&str]) -> Vec<String> {
    let mut args = vec!["run", "p.ron", "--json"];
    SMALL.iter().chain(set).for_each(|s| args.extend(["--set", s]));
    ran(&project.json(&args))
}

#[test]
fn a_changed_value_reruns_its_downstream_stages_and_nothing_else() {
    let project = tiny();
    let all = run(&project, &[]);
    for stage in
        ["shapes", "train", "bank/short", "pretrain/multicrop", "knn/untrained", "transfer/short", "comparison"]
    {
        assert!(all.contains(&stage.to_string()), "{stage} is not in {all:?}");
    }
    assert!(run(&project, &[]).is_empty(), "a second run");
    assert_eq!(run(&project, &["linear/long.epochs=2"]), ["comparison", "linear/long"]);
    let reran = run(&project, &["pretrain.method.bank_temperature=0.1"]);
    let untouched = |name: &String| {
        ["bank/", "train", "test", "glyphs", "shapes"].iter().any(|p| name.starts_with(p))
            || name.ends_with("/untrained")
    };
    assert!(!reran.iter().any(untouched), "{reran:?}");
    for stage in ["pretrain/short", "pretrain/multicrop", "linear/short", "transfer/short", "comparison"] {
        assert!(reran.contains(&stage.to_string()), "{stage} is not in {reran:?}");
    }
    // Every figure can be recomputed from its predictions, and has a time and host.
    for stage in ["linear/long", "knn/untrained", "transfer/multicrop"] {
        figures_are_those_of_their_predictions(&project, stage);
    }
    let shown = project.json(&["show", "linear/long", "--json"]);
    let names: Vec<&str> =
        shown["result"]["outputs"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["classifier", "predictions", "metrics"]);
    assert!(shown["result"]["made"]["determinism_class"]["libtorch"].is_string(), "{}", shown["result"]["made"]);
    let graph = project.ok(&["graph", "p.ron"]).out;
    insta::assert_snapshot!(graph);
}

#[test]
fn every_figure_of_the_table_is_reached_cited_and_a_training_gives_its_bytes_again() {
    let project = tiny();
    run(&project, &[]);
    let audit = project.ok(&["audit", "comparison"]).out;
    assert!(audit.contains("✓ 16 figures follow from the predictions") && audit.contains("all passed"), "{audit}");
    let figures = project.json(&["show", "comparison", "--json"])["result"]["figures"].clone();
    let figures = figures.as_array().unwrap();
    assert!(figures.len() == 16 && figures.iter().all(|figure| figure["audit"] == "pass"), "{figures:?}");
    for figure in figures {
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_string();
        let parts = [word(&figure["line"]), word(&figure["evaluation"]), word(&figure["measured"]["name"])];
        let cited = project.json(&["cite", &parts.join("/"), "--out", "figure.intoto.jsonl", "--json"]);
        assert_eq!(cited["cited"]["results"], figure["results"]);
        assert!(project.ok(&["audit", "figure.intoto.jsonl"]).out.contains("make one chain"));
    }
    let mut args = vec![
        "run",
        "p.ron",
        "--set",
        "comparison.expect_table=None",
        "--set",
        r#"comparison.expect="blake3:0000000000000000000000000000000000000000000000000000000000000000""#,
    ];
    SMALL.iter().for_each(|s| args.extend(["--set", s]));
    let differs = project.ok(&args).err;
    assert!(differs.contains("comparison: differs from the published one\n"), "{differs}");
    assert!(differs.contains("\n  computed under ") && differs.contains("libtorch"), "{differs}");
    assert!(differs.contains("`caco audit bank/") && !differs.contains("warning: "), "{differs}");
    let again = project.ok(&["audit", "--rerun", "pretrain/short"]).out;
    assert!(again.contains("✓ pretrain/short: run again, identical bytes"), "{again}");
    // A figure that fails the audit is marked where it is shown.
    let shown = project.json(&["show", "linear/long", "--json"]);
    let log = Path::new(shown["result"]["folder"].as_str().unwrap()).join("log");
    std::fs::write(log, "another story").unwrap();
    let marked = project.json(&["show", "comparison", "--json"])["result"]["figures"].clone();
    let failed = marked.as_array().unwrap().iter().filter(|figure| figure["audit"] == "fail").count();
    assert!((2..16).contains(&failed), "{failed}");
}

/// Follows `caco show` from a stage's figures to its predictions, and recomputes them.
fn figures_are_those_of_their_predictions(project: &Project, stage: &str) {
    let shown = project.json(&["show", stage, "--json"]);
    let listed: Vec<Metric> = serde_json::from_value(shown["result"]["metrics"].clone()).unwrap();
    let outputs = shown["result"]["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["name"] == "predictions").unwrap();
    let file = project.path().join(output["object"].as_str().unwrap());
    let again = Predictions::read(&file).unwrap().metrics();
    assert!(!again.is_empty());
    for figure in again {
        assert!(listed.contains(&figure), "{stage}: {figure:?} is not among {listed:?}");
    }
}

#[test]
fn stages_of_an_experiment_refuse_what_does_not_fit() {
    let project = tiny();
    let mut args = vec!["run", "p.ron", "pretrain/short"];
    SMALL.iter().chain(&["pretrain/short.model.width=8"]).for_each(|s| args.extend(["--set", s]));
    let run = project.caco(&args);
    assert!(run.code == 1 && run.err.contains("of another model"), "{}", run.err);
}
