//! Layers over values that are variants with fields.

use crate::project::Project;
use caco_pipeline::{
    code::Codebase,
    kind::Registry,
    pipeline::{Overlay, Pipeline},
};
use serde_json::{Value, json};
use std::{path::Path, sync::LazyLock};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(caco_kinds::all(), Codebase::default()));

const FILE: &str = r#"(
    common: (model: (arch: ResNet18), views: SingleCrop(size: 32), batch: 8),
    stages: {"i": index(root: Path("x"))},
    each_variant: {
        "bank": init_bank(index: "i", views: MultiCrop(size: 32, small: 16, count: 4)),
        "train": pretrain(index: "i", method: CaCo(init: "bank"), epochs: 1, monitor: Some((index: "i", every: 2))),
    },
    variants: {
        "one": (),
        "several": (set: {"bank": (views: MultiCrop(small: 12)), "train": (views: MultiCrop(size: 24, small: 8))}),
        "other": (set: {"bank": (views: SingleCrop(size: 20))}),
    },
    profiles: {"small": (common: (views: SingleCrop(size: 28)), set: {"bank": (views: (size: 30)), "train": (monitor: (every: 3))})},
    sweeps: {"s": (extends: "several", stages: ["bank", "train"], axes: {
        "small": (set: ["bank.views.small", "train.views.small"], values: [10, 11]),
    })},
)"#;

fn load(profile: Option<&str>, set: &[&str]) -> Pipeline {
    let overlay = Overlay { profile: profile.map(String::from), set: set.iter().map(ToString::to_string).collect() };
    Pipeline::parse(Path::new("p.ron"), FILE.into(), &overlay, &REGISTRY).unwrap_or_else(|e| panic!("{e}"))
}

fn field(pipeline: &Pipeline, stage: &str, field: &str) -> Value {
    let stage = pipeline.stages.iter().find(|s| s.name == stage).unwrap();
    serde_json::from_str::<Value>(stage.parameters()).unwrap()[field].clone()
}

fn several(size: u32, small: u32, count: u32) -> Value {
    json!({"MultiCrop": {"size": size, "small": small, "count": count}})
}

#[test]
fn the_same_variant_is_merged_and_another_replaces_it() {
    let pipeline = load(None, &[]);
    assert_eq!(field(&pipeline, "bank/one", "views"), several(32, 16, 4));
    assert_eq!(field(&pipeline, "bank/several", "views"), several(32, 12, 4), "its other fields stay");
    assert_eq!(field(&pipeline, "bank/other", "views"), json!({"SingleCrop": {"size": 20}}));
    assert_eq!(field(&pipeline, "train/several", "views"), several(24, 8, 6), "nothing of `common` is left");
    let small = load(Some("small"), &[]);
    assert_eq!(field(&small, "bank/several", "views"), several(30, 12, 4));
    assert_eq!(field(&small, "bank/other", "views"), json!({"SingleCrop": {"size": 30}}));
    assert_eq!(field(&small, "train/one", "views"), json!({"SingleCrop": {"size": 28}}), "the profile's `common`");
    assert_eq!(field(&small, "train/one", "monitor")["every"], 3, "inside Some(…)");
    assert_eq!(field(&small, "train/one", "monitor")["index"], "i");
}

#[test]
fn a_path_sets_a_field_of_the_variant_that_is_there() {
    let set = load(
        None,
        &["bank/one.views.small=20", "train.views.size=48", "train.monitor.every=5", "common.views.size=40"],
    );
    assert_eq!(field(&set, "bank/one", "views"), several(32, 20, 4));
    assert_eq!(field(&set, "train/one", "views"), json!({"SingleCrop": {"size": 48}}), "the variant of `common`");
    assert_eq!(field(&set, "train/several", "views"), several(48, 8, 6));
    assert_eq!(field(&set, "train/one", "monitor")["every"], 5);
    assert_eq!(field(&set, "bank/s/small=10", "views"), several(32, 10, 4), "an axis of a sweep");
    assert_eq!(field(&set, "train/s/small=11", "views"), several(48, 11, 6));
    let whole = load(None, &["bank/one.views=MultiCrop(small: 9)"]);
    assert_eq!(field(&whole, "bank/one", "views"), several(32, 9, 4));
}

#[test]
fn a_path_into_what_has_no_fields_is_an_error_with_a_way_out() {
    let project = Project::with(FILE);
    let cases = [
        ("train.epochs.x=1", ["has no 'epochs.x': 1 has no fields", "replace it: train.epochs=VALUE"]),
        ("i.root.path=1", ["has no 'root.path': Path(\"x\") has no fields", "replace it: i.root=VALUE"]),
        ("train.collapse.rate=1", ["has no variant here whose 'rate' could be set", "VARIANT(rate: …)"]),
        ("bank/other.views.small=1", ["unknown field 'small'", "size"]),
    ];
    for (set, says) in cases {
        let printed = project.caco(&["check", "p.ron", "--set", set]);
        assert_eq!(printed.code, 1, "{set}");
        for part in says {
            assert!(printed.err.contains(part), "{set}: no {part} in\n{}", printed.err);
        }
    }
}
