//! Exporting and importing weights.

use crate::project::Project;
use std::path::Path;

const PIPELINE: &str = r#"(
    stages: {
        "images": synthesize(classes: 4, train: 32, test: 16, size: 40),
        "train": index(root: Stage("images/train")),
        "test": index(root: Stage("images/test")),
        "encoder": init_encoder(model: (arch: ResNet18, width: 16, hidden: 32, dim: 16), seed: 3),
        "features/train": features(encoder: "encoder", index: "train", resize: 40, crop: 32),
        "features/test": features(encoder: "encoder", index: "test", resize: 40, crop: 32),
        "knn": knn(train: "features/train", test: "features/test", share: 1.0),
        "export": export_weights(encoder: "encoder", results: ["knn"]),
        "import": import_weights(file: Stage("export/backbone"), arch: ResNet18, width: 16),
        "features/again": features(encoder: "import", index: "test", resize: 40, crop: 32),
        "older": import_weights(file: Path("${PTH}/older.pth.tar"), arch: ResNet18, width: 1),
        "archive": import_weights(file: Path("${PTH}/archive.pth.tar"), arch: ResNet18, width: 1),
        "wrong": import_weights(file: Path("${PTH}/archive.pth.tar"), arch: ResNet50, width: 1),
        "no-head": export_weights(encoder: "import"),
    },
)"#;

fn run(project: &Project, stages: &[&str]) -> crate::project::Printed {
    let args = [&["run", "p.ron"], stages].concat();
    let pth = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/pth");
    crate::project::printed(project.command(&args).env("PTH", pth).output().unwrap())
}

fn output(project: &Project, stage: &str, name: &str) -> String {
    let shown = project.json(&["show", stage, "--json"]);
    let outputs = shown["result"]["outputs"].as_array().unwrap().clone();
    outputs.iter().find(|o| o["name"] == name).unwrap()["blake3"].as_str().unwrap().into()
}

#[test]
fn an_exported_backbone_comes_back_with_the_same_features() {
    let project = Project::with(PIPELINE);
    let run = run(&project, &["features/again", "export"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(output(&project, "features/again", "features"), output(&project, "features/test", "features"));
    project.ok(&["get", "export/card", "card.json"]);
    let card: serde_json::Value = serde_json::from_str(&project.read("card.json")).unwrap();
    let shown = project.json(&["show", "export", "--json"]);
    assert_eq!(card["key"], shown["result"]["key"]);
    assert_eq!(card["encoder"], output(&project, "encoder", "encoder"));
    assert_eq!(card["files"]["backbone.safetensors"]["blake3"], output(&project, "export", "backbone"));
    assert_eq!((&card["figures"][0]["evaluation"], &card["figures"][0]["name"]), (&"knn".into(), &"top1".into()));
    project.ok(&["get", "export/markdown", "card.md"]);
    assert!(project.read("card.md").contains("| knn | top1 | test |"), "{}", project.read("card.md"));
}

#[test]
fn a_published_file_is_imported_or_refused_with_a_reason() {
    let project = Project::with(PIPELINE);
    let imported = run(&project, &["older", "archive"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert_eq!(output(&project, "older", "encoder"), output(&project, "archive", "encoder"));
    let wrong = run(&project, &["wrong"]);
    assert!(wrong.code == 1 && wrong.err.contains("'layer1.0.conv3.weight' is missing"), "{}", wrong.err);
    let no_head = run(&project, &["no-head"]);
    assert!(no_head.code == 1 && no_head.err.contains("give `head: false`"), "{}", no_head.err);
}
