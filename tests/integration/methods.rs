//! Every method of pre-training, as a stage.

use crate::project::Project;

const FILE: &str = r#"(
    common: (seed: 3, model: (arch: ResNet18, width: 4, stem: Cifar, hidden: 16, dim: 8), views: SingleCrop(size: 16), batch: 8),
    stages: {
        "images": synthesize(classes: 2, train: 32, test: 8, size: 24),
        "train": index(root: Stage("images/train")),
        "bank": init_bank(index: "train", bank_size: 32),
    },
    each_variant: {
        "pretrain": pretrain(index: "train", method: SimCLR(), epochs: 2, warmup: 1, shards: 2),
        "features": features(encoder: "pretrain", index: "train", resize: 16, crop: 16),
    },
    variants: {
        "caco": (set: {"pretrain": (method: CaCo(init: "bank", bank_rate: 0.01))}),
        "moco": (set: {"pretrain": (method: MoCoV2(queue_size: 20))}),
        "adco": (set: {"pretrain": (method: AdCo(init: "bank"))}),
        "drawn": (set: {"pretrain": (method: AdCo(bank_size: 20, symmetric: true), views: MultiCrop(size: 16, small: 8, count: 2))}),
        "simclr": (),
        "byol": (set: {"pretrain": (method: BYOL(predictor: 16))}),
        "swav": (set: {"pretrain": (method: SwAV(prototypes: 6), views: MultiCrop(size: 16, small: 8, count: 2))}),
    },
)"#;

#[test]
fn every_method_trains_an_encoder() {
    let project = Project::with(FILE);
    project.ok(&["run", "p.ron"]);
    for variant in ["caco", "moco", "adco", "drawn", "simclr", "byol", "swav"] {
        let stage = format!("pretrain/{variant}");
        let shown = project.json(&["show", &stage, "--json"]);
        let outputs: Vec<&str> =
            shown["result"]["outputs"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
        let has_bank = ["caco", "moco", "adco", "drawn"].contains(&variant);
        assert_eq!(outputs.contains(&"bank"), has_bank, "{stage}: {outputs:?}");
        let _ = std::fs::remove_file(project.path().join("curve.jsonl"));
        project.ok(&["get", &format!("{stage}/curve"), "curve.jsonl"]);
        let curve = project.read("curve.jsonl");
        assert_eq!(curve.lines().count(), 8, "{stage}: two epochs of four steps");
        assert!(curve.contains("\"loss\":") && curve.contains("\"rate\":"), "{stage}: {curve}");
    }
}

#[test]
fn a_published_value_that_is_written_out_changes_no_key() {
    let project = Project::with(FILE);
    project.ok(&["run", "p.ron", "pretrain/simclr"]);
    let written = ["method=SimCLR(temperature: 0.1)", "rate=0.3", "optimizer=Lars", "weight_decay=1e-6"];
    let set: Vec<String> = written.iter().map(|value| format!("pretrain/simclr.{value}")).collect();
    let args: Vec<&str> = set.iter().flat_map(|value| ["--set", value.as_str()]).collect();
    let again = project.ok(&[&["run", "p.ron", "pretrain/simclr"], args.as_slice()].concat());
    assert!(again.err.contains("nothing to do") || again.out.contains("nothing to do"), "{}{}", again.out, again.err);
}
