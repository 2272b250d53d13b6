//! The dependencies between the workspace members, as known to cargo.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// The other members that each member may use. ARCHITECTURE.md describes each.
const EDGES: [(&str, &[&str]); 14] = [
    ("caco-measure", &[]),
    ("caco-pipeline", &["caco-measure"]),
    ("caco-engine", &["caco-measure", "caco-pipeline"]),
    ("caco-views", &["caco-measure", "caco-pipeline"]),
    ("caco-kinds", &["caco-pipeline", "caco-views"]),
    ("caco-report", &["caco-kinds", "caco-measure", "caco-pipeline"]),
    ("caco-provenance", &["caco-engine", "caco-kinds", "caco-measure", "caco-pipeline", "caco-report"]),
    ("caco-inspect", &["caco-engine", "caco-measure", "caco-pipeline", "caco-provenance", "caco-report"]),
    ("caco-data-sets", &["caco-kinds"]),
    ("caco-data", &["caco-kinds", "caco-measure", "caco-views"]),
    ("caco-learn", &["caco-data", "caco-kinds", "caco-measure"]),
    ("caco-worker", &["caco-data", "caco-kinds", "caco-learn", "caco-measure", "caco-pipeline", "caco-report"]),
    ("caco-numeric", &[]),
    (
        "caco",
        &[
            "caco-data-sets",
            "caco-engine",
            "caco-inspect",
            "caco-kinds",
            "caco-measure",
            "caco-pipeline",
            "caco-provenance",
            "caco-report",
        ],
    ),
];

/// The members that each member uses outside its tests.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"]).arg(manifest);
    let metadata: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let used = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().unwrap().to_string());
        names.filter(|name| name.starts_with("caco")).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (package["name"].as_str().unwrap().to_string(), used(package))).collect()
}

#[test]
fn members_use_only_what_they_may() {
    let allowed: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(member, uses)| (member.to_string(), uses.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(edges(), allowed);
}

#[test]
fn the_runner_builds_without_a_tensor_library() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--package", "caco", "--prefix", "none", "--offline"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("caco-engine "), "{tree}");
    for name in ["tch", "torch-sys", "safetensors"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(name)), "caco uses {name}");
    }
}

#[test]
fn the_runner_does_not_load_libtorch() {
    let program = fs::read(crate::project::caco_path()).unwrap();
    for library in ["libtorch_cpu.so", "libtorch.so", "libc10.so"] {
        let needed = program.windows(library.len()).any(|w| w == library.as_bytes());
        assert!(!needed, "caco is linked to {library}");
    }
}
