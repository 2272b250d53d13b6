//! Loops and `let` in pipeline files, and `caco check --expand`.

use crate::{
    pipelines::{files, folder},
    project::{Project, caco_path},
};
use caco_kinds::all;
use caco_pipeline::{
    code::Codebase,
    kind::Registry,
    pipeline::{Overlay, Pipeline},
    tree,
};
use proptest::prelude::*;
use std::{fmt::Write, fs, path::Path, process::Command, sync::LazyLock};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(all(), Codebase::default()));

fn load(text: &str, profile: Option<&str>) -> Pipeline {
    let overlay = Overlay { profile: profile.map(String::from), set: vec![] };
    Pipeline::parse(Path::new("p.ron"), text.into(), &overlay, &REGISTRY).unwrap_or_else(|e| panic!("{e}"))
}

/// All that decides what the stages are and what their keys are, sorted by name.
fn stages(pipeline: &Pipeline) -> Vec<String> {
    let all = pipeline.stages.iter().map(|stage| {
        let (kind, version, parameters) = (stage.kind, stage.version, stage.parameters());
        let (key, inputs, outputs) = (&stage.key_parameters, &stage.inputs, &stage.outputs);
        let (expected, policy, pin) = (&stage.expected, &stage.policy, &stage.pin);
        format!(
            "{}: {kind} {version} {key} {parameters} {inputs:?} {outputs:?} {expected:?} {policy:?} {pin:?}",
            stage.name
        )
    });
    let mut all: Vec<String> = all.collect();
    all.sort();
    all.push(format!("{:?} {:?} {}", pipeline.targets, pipeline.profiles, pipeline.name));
    all
}

#[test]
fn every_file_expands_to_one_with_the_same_stages() {
    let project = Project::new();
    for file in files(&folder()) {
        let path = file.display();
        // Files name others from the folder of the repository.
        let expanded = Command::new(caco_path()).args(["check", "--expand"]).arg(&file).output().unwrap();
        assert!(expanded.status.success(), "{path}\n{}", String::from_utf8_lossy(&expanded.stderr));
        let expanded = String::from_utf8(expanded.stdout).unwrap();
        let written = fs::read_to_string(&file).unwrap();
        let profiles = load(&written, None).profiles;
        for profile in profiles.iter().map(|name| Some(name.as_str())).chain([None]) {
            // The name of a file is that of its pipeline where it has no other.
            assert_eq!(stages(&load(&written, profile)), stages(&load(&expanded, profile)), "{path} {profile:?}");
        }
        assert!(tree::Node::parse(0, &expanded).is_ok(), "{path} still has loops");
        project.write("expanded.ron", &expanded);
        assert_eq!(Pipeline::expand(&project.path().join("expanded.ron")).unwrap(), expanded, "{path}");
    }
}

#[test]
fn loops_reach_every_part_of_a_file() {
    let looped = r#"(
    let: (seeds: [1, 2], kinds: {"small": (size: 16), "large": (size: 24)}),
    common: (seed: 7),
    stages: {
        for (kind, of) in kinds { "images/{kind}": synthesize(classes: 2, train: 9, test: 9, size: of.size) }
        "table": command(shell: "cat i* > o", outputs: ["o"], inputs: {
            for seed in seeds { "i{seed}": Stage("work/v{seed}/o") }
        }),
    },
    each_variant: {
        for name in ["work"] { name: command(shell: "echo {{}} $seed > o", outputs: ["o"], parameters: {"seed": 0}) }
    },
    variants: {for seed in seeds { "v{seed}": (set: {"work": (parameters: {"seed": seed})}) }},
    profiles: {
        for (kind, _) in kinds {
            "{kind}": (set: {for (other, _) in kinds { "images/{other}": (size: kinds.small.size, classes: 3) }}),
        }
    },
    sweeps: {"s": (axes: {for axis in ["x"] { axis: (set: ["work.parameters.seed"], values: seeds) }})},
    targets: [for seed in seeds { "work/v{seed}" }],
)"#;
    let by_hand = r#"(
    common: (seed: 7),
    stages: {
        "images/small": synthesize(classes: 2, train: 9, test: 9, size: 16),
        "images/large": synthesize(classes: 2, train: 9, test: 9, size: 24),
        "table": command(shell: "cat i* > o", outputs: ["o"], inputs: {
            "i1": Stage("work/v1/o"), "i2": Stage("work/v2/o"),
        }),
    },
    each_variant: {"work": command(shell: "echo {} $seed > o", outputs: ["o"], parameters: {"seed": 0})},
    variants: {
        "v1": (set: {"work": (parameters: {"seed": 1})}),
        "v2": (set: {"work": (parameters: {"seed": 2})}),
    },
    profiles: {
        "small": (set: {"images/small": (size: 16, classes: 3), "images/large": (size: 16, classes: 3)}),
        "large": (set: {"images/small": (size: 16, classes: 3), "images/large": (size: 16, classes: 3)}),
    },
    sweeps: {"s": (axes: {"x": (set: ["work.parameters.seed"], values: [1, 2])})},
    targets: ["work/v1", "work/v2"],
)"#;
    for profile in [None, Some("small"), Some("large")] {
        let (looped, by_hand) = (load(looped, profile), load(by_hand, profile));
        assert_eq!((stages(&looped), &looped.sweeps), (stages(&by_hand), &by_hand.sweeps));
    }
    let project = Project::with(looped);
    let plan = |args: &[&str]| project.json(&[&["plan", "p.ron", "images/*", "--json"], args].concat()).to_string();
    assert_ne!(plan(&[]), plan(&["--set", "images/small.size=20"]), "--set reaches what a loop made");
}

/// An expanded file is what is run: the same keys, so nothing runs again.
#[test]
fn an_expanded_file_has_the_results_of_its_loops() {
    let project = Project::with(
        r#"(stages: {for (name, text) in {"a": "x", "b": "y"} { name: command(shell: "echo {text} > o", outputs: ["o"]) }})"#,
    );
    assert_eq!(project.run(&[]), ["a", "b"]);
    let expanded = project.ok(&["check", "p.ron", "--expand"]).out;
    assert_eq!(
        expanded,
        r#"(
    stages: {
        "a": command(shell: "echo x > o", outputs: ["o"]),
        "b": command(shell: "echo y > o", outputs: ["o"]),
    },
)
"#
    );
    project.write("p.ron", &expanded);
    assert!(project.run(&[]).is_empty());
}

#[test]
fn what_is_wrong_in_an_iteration_names_its_values() {
    let files = [
        (
            "an unknown variable",
            "(stages: {\n    for name in [\"a\"] {\n        \"{nmae}\": command(shell: \"echo {name} > o\", outputs: [\"o\"]),\n    }\n})",
        ),
        (
            "one name twice",
            "(stages: {\n    for name in [\"a\", \"b\"] {\n        \"x\": command(shell: \"echo {name} > o\", outputs: [\"o\"]),\n    }\n})",
        ),
        (
            "an unknown field in one of two loops",
            "(\n    let: (sizes: {\"small\": 8}),\n    stages: {\n        for seed in [3] {\n            for (name, size) in sizes {\n                \"{name}-{seed}\": synthesize(classes: 2, train: 9, test: 9, sise: size, seed: seed),\n            }\n        }\n    },\n)",
        ),
        (
            "a value out of range, from a list",
            "(stages: {\n    for count in [\n        2,\n        99,\n    ] {\n        \"images-{count}\": synthesize(classes: count, train: 99, test: 99, size: 32),\n    }\n})",
        ),
        (
            "an unknown reference",
            "(stages: {\n    for name in [\"a\"] {\n        \"{name}\": command(shell: \"cat i > o\", outputs: [\"o\"], inputs: {\"i\": Stage(\"{name}-1\")}),\n    }\n})",
        ),
        ("a loop in place of a value", "(stages: for name in [\"a\"] { name: command(shell: \"x\", outputs: []) })"),
    ];
    let shown: Vec<String> = files
        .iter()
        .map(|(what, text)| {
            let printed = Project::with(text).caco(&["check", "p.ron"]);
            assert_eq!(printed.code, 1, "{}", printed.out);
            format!("--- {what}\n{}", printed.err)
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_file_is_expanded_before_anything_is_laid_over_it() {
    let project = Project::with(
        r#"(stages: {for x in [1] { "s{x}": command(shell: "echo {x} > o", outputs: ["o"]) }}, profiles: {"p": ()})"#,
    );
    for option in [["--set", "s1.shell=\"true\""], ["--profile", "p"]] {
        let printed = project.caco(&[&["check", "p.ron", "--expand"][..], &option].concat());
        assert!(printed.code == 1 && printed.out.is_empty() && printed.err.contains("help: "), "{}", printed.err);
    }
    // An error in a stage is reported after the expansion that shows it.
    project.edit("shell", "shel");
    let printed = project.caco(&["check", "p.ron", "--expand"]);
    assert!(printed.code == 1 && printed.out.contains("\"s1\": command(shel: \"echo 1 > o\""), "{}", printed.out);
    let set = project.caco(&["check", "p.ron", "--set", "s1.shell=[for x in [1] { x }]"]);
    assert!(set.code == 1 && set.err.contains("a loop can only be in a pipeline file"), "{}", set.err);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Stages, their parameters and inputs from two nested loops, and the same text from two loops of Rust.
    #[test]
    fn a_loop_equals_its_entries_written_out(
        sets in prop::collection::btree_map("[a-z]{1,3}", (any::<i32>(), "[ -z|~]{0,6}"), 1..4),
        seeds in prop::collection::btree_set(0u8..9, 1..4),
    ) {
        let seeds = Vec::from_iter(seeds);
        let named = |name: &str, (rate, text): &(i32, String)| format!("\"{name}\": (rate: {rate}, text: {text:?})");
        let list: Vec<String> = sets.iter().map(|(name, set)| named(name, set)).collect();
        let looped = format!(
            r#"(let: (sets: {{{}}}), stages: {{for (name, set) in sets {{ for seed in {seeds:?} {{
                "{{name}}/{{seed}}": command(shell: "x", outputs: ["o-{{name}}"], parameters: {{"rate": set.rate, "text": set.text, "both": "{{set.text}}, {{seed}}", "seed": seed}}),
            }} }}}})"#,
            list.join(", ")
        );
        let mut by_hand = String::from("(stages: {");
        for (name, (rate, text)) in &sets {
            for seed in &seeds {
                let both = format!("{text}, {seed}");
                write!(by_hand, r#""{name}/{seed}": command(shell: "x", outputs: ["o-{name}"], parameters: {{"rate": {rate}, "text": {text:?}, "both": {both:?}, "seed": {seed}}}),"#).unwrap();
            }
        }
        by_hand += "})";
        prop_assert_eq!(stages(&load(&looped, None)), stages(&load(&by_hand, None)));
    }
}
