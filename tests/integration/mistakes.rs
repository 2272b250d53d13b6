//! Invalid input: a clear error with its location and help, and nothing is lost.

use crate::project::Project;
use std::{fs, os::unix::fs::PermissionsExt};

/// The output of `caco check` for an invalid file.
fn wrong(pipeline: &str) -> String {
    let printed = Project::with(pipeline).caco(&["check", "p.ron"]);
    assert_eq!(printed.code, 1, "{}", printed.out);
    printed.err
}

#[test]
fn invalid_files_are_reported_with_their_line() {
    let files = [
        ("an unknown field", r#"(stages: {"a": knn(train: "x", test: "y", temprature: 0.1)})"#),
        ("an unknown kind", r#"(stages: {"a": pretrian(epochs: 3)})"#),
        ("an unknown value", r#"(stages: {"a": init_encoder(model: (arch: ResNet19))})"#),
        ("a missing field", r#"(stages: {"a": init_encoder(seed: 1)})"#),
        (
            "a value out of range",
            "(\n  stages: {\n    \"a\": synthesize(classes: 99, train: 99, test: 99, size: 32),\n  },\n)",
        ),
        ("a value of another type", r#"(stages: {"a": synthesize(classes: "many", train: 9, test: 9, size: 32)})"#),
        ("a bracket that is not closed", "(\n  stages: {\n    \"a\": command(outputs: [\"x\")\n  }\n)"),
        (
            "an unknown reference",
            r#"(stages: {"images": synthesize(classes: 2, train: 9, test: 9, size: 32), "i": index(root: Stage("image/train"))})"#,
        ),
        (
            "an unknown output",
            r#"(stages: {"images": synthesize(classes: 2, train: 9, test: 9, size: 32), "i": index(root: Stage("images/trian"))})"#,
        ),
        (
            "a cycle",
            r#"(stages: {
            "a": command(shell: "x", inputs: {"i": Stage("c")}, outputs: ["o"]),
            "b": command(shell: "x", inputs: {"i": Stage("a")}, outputs: ["o"]),
            "c": command(shell: "x", inputs: {"i": Stage("b")}, outputs: ["o"]),
        })"#,
        ),
        (
            "one name twice",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"]), "a": command(shell: "y", outputs: ["o"])})"#,
        ),
        (
            "an ambiguous name",
            r#"(stages: {"a": command(shell: "x", outputs: ["b"]), "a/b": command(shell: "y", outputs: ["o"])})"#,
        ),
        ("an output inside another", r#"(stages: {"a": command(shell: "x", outputs: ["o/p", "o"])})"#),
        (
            "shards that a batch cannot be cut into",
            r#"(stages: {"p": pretrain(index: "i", method: CaCo(init: "b"), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 12, shards: 8)})"#,
        ),
        (
            "a view as it was written before it was a list",
            "(stages: {\"p\": init_bank(index: \"i\", model: (arch: ResNet18), batch: 8, views: Custom([\n    (size: 24, scale: (0.4, 1.0), grey_p: 0.2, flip_p: 0.5),\n])),\n})",
        ),
        (
            "a view that does not begin with a crop",
            r#"(stages: {"p": init_bank(index: "i", model: (arch: ResNet18), batch: 8, views: Custom([[Flip(p: 0.5)]]))})"#,
        ),
        (
            "an unknown operation of a view",
            r#"(stages: {"p": init_bank(index: "i", model: (arch: ResNet18), batch: 8, views: Custom([[Crop(size: 24, scale: (0.4, 1.0)), Gray(p: 0.5)]]))})"#,
        ),
        (
            "an unknown parameter of an operation",
            r#"(stages: {"p": init_bank(index: "i", model: (arch: ResNet18), batch: 8, views: Custom([[Crop(size: 24, scale: (0.4, 1.0)), RandAugment(bin: 5)]]))})"#,
        ),
        (
            "a magnitude out of range",
            r#"(stages: {"p": init_bank(index: "i", model: (arch: ResNet18), batch: 8, views: Custom([[Crop(size: 24, scale: (0.4, 1.0))], [Crop(size: 24, scale: (0.4, 1.0)), RandAugment(magnitude: 31)]]))})"#,
        ),
        (
            "a precision without portable kernels",
            r#"(stages: {"f": features(encoder: "e", index: "i", resize: 32, crop: 32, precision: Bf16, determinism: Portable)})"#,
        ),
        (
            "a number with a fraction",
            "(\n  common: (model: (arch: ResNet18)),\n  stages: {\n    \"p\": pretrain(index: \"i\", method: CaCo(init: \"b\"), views: SingleCrop(size: 32), batch: 8, epochs: 1.5),\n  },\n)",
        ),
        ("a word in quotes", r#"(stages: {"a": init_encoder(model: (arch: "ResNet18"))})"#),
        ("a path in quotes", r#"(stages: {"a": index(root: "my images/train")})"#),
        ("a line for a list", r#"(stages: {"a": command(argv: "echo hi", outputs: ["o"])})"#),
        (
            "views without a size",
            r#"(stages: {"a": init_bank(index: "i", model: (arch: ResNet18), batch: 8, views: MultiCrop(size: 16))})"#,
        ),
        ("neither a program nor a line", r#"(stages: {"a": command(outputs: ["o"])})"#),
        ("a split that is not said", r#"(stages: {"a": index(root: Path("x"), format: Cifar10)})"#),
        (
            "a common field of no kind",
            r#"(common: (sede: 3), stages: {"a": synthesize(classes: 2, train: 9, test: 9, size: 32)})"#,
        ),
        (
            "a variant without what none has",
            r#"(stages: {}, each_variant: {"a": command(shell: "x", outputs: ["o"])}, variants: {"v": (without: ["b"])})"#,
        ),
        (
            "a word for a string",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"], parameters: {"optimizer": Adam})})"#,
        ),
        (
            "a boolean as Python has it",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"], parameters: {"deep": {"nesterov": True}})})"#,
        ),
        (
            "a number without end",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"], parameters: {"rates": [0.1, 1e400]})})"#,
        ),
        (
            "a parameter of another shape",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"], parameters: {"data": Path("x")})})"#,
        ),
        (
            "a key twice",
            r#"(stages: {"a": command(shell: "x", outputs: ["o"], parameters: {"rate": 0.1, "rate": 0.2})})"#,
        ),
        (
            "an index for an encoder",
            r#"(stages: {"i": index(root: Path("x")), "f": features(encoder: "i", index: "i", resize: 32, crop: 32)})"#,
        ),
        (
            "the stage's other output",
            r#"(stages: {"i": index(root: Path("x")), "e": init_encoder(model: (arch: ResNet18)), "f": features(encoder: "e", index: "i", resize: 32, crop: 32), "x": export_weights(encoder: "e", bank: "e")})"#,
        ),
        (
            "a stage that each variant has",
            r#"(stages: {}, each_variant: {"a": command(shell: "x", outputs: ["o"])}, variants: {"v": ()}, targets: ["a"])"#,
        ),
        (
            "more views than a method compares",
            r#"(stages: {"i": index(root: Path("x")), "p": pretrain(index: "i", method: SimCLR(), model: (arch: ResNet18), views: MultiCrop(size: 32, small: 16), epochs: 1, batch: 8)})"#,
        ),
        (
            "a batch in parts for a method that compares its images",
            r#"(stages: {"i": index(root: Path("x")), "p": pretrain(index: "i", method: BYOL(), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8, accumulate: 2)})"#,
        ),
        (
            "a value out of a method's range",
            r#"(stages: {"i": index(root: Path("x")), "p": pretrain(index: "i", method: SwAV(epsilon: 0), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8)})"#,
        ),
        (
            "a size of a bank that has one",
            r#"(stages: {"i": index(root: Path("x")), "b": init_bank(index: "i", model: (arch: ResNet18), views: SingleCrop(size: 32), batch: 8), "p": pretrain(index: "i", method: AdCo(init: "b", bank_size: 64), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8)})"#,
        ),
        (
            "another method's field",
            r#"(stages: {"i": index(root: Path("x")), "p": pretrain(index: "i", method: BYOL(temperature: 0.1), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8)})"#,
        ),
        (
            "a bank of a method without one",
            r#"(stages: {"i": index(root: Path("x")), "p": pretrain(index: "i", method: BYOL(), model: (arch: ResNet18), views: SingleCrop(size: 32), epochs: 1, batch: 8), "x": export_weights(encoder: "p", bank: "p/bank")})"#,
        ),
        (
            "a variant that extends nothing",
            r#"(stages: {}, each_variant: {}, variants: {"long": (extends: "shrot"), "short": ()})"#,
        ),
    ];
    let shown: Vec<String> = files.iter().map(|(what, text)| format!("--- {what}\n{}", wrong(text))).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_missing_input_is_reported_with_its_path() {
    let project = Project::with(
        r#"(stages: {"i": index(root: Path("${CACO_TEST_NOWHERE}/train")), "j": index(root: Path("not/here"))})"#,
    );
    let plan = project.ok(&["plan", "p.ron"]).out;
    assert!(plan.contains("the environment variable CACO_TEST_NOWHERE is not set"), "{plan}");
    assert!(plan.contains("not/here does not exist"), "{plan}");
    let run = project.caco(&["run", "p.ron"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("error: stage 'j' (p.ron:1): input root:") && run.err.contains("--set"), "{}", run.err);
}

#[test]
fn a_failed_stage_shows_its_log_its_folder_and_how_to_run_it_alone() {
    let project = Project::with(
        r#"(stages: {
        "bad": command(shell: "echo the reason >&2; exit 3", outputs: ["o"]),
        "after": command(shell: "cat i > o", inputs: {"i": Stage("bad")}, outputs: ["o"]),
        "good": command(shell: "echo 1 > o", outputs: ["o"]),
    })"#,
    );
    let run = project.caco(&["run", "p.ron", "--keep-going"]);
    assert_eq!(run.code, 1);
    for part in [
        "stage 'bad' failed: exit code 3",
        "| the reason",
        "cache/work/",
        "caco run p.ron 'bad'",
        "1 stage run, 0 cached, 1 failed, 1 not run",
    ] {
        assert!(run.err.contains(part), "no {part} in\n{}", run.err);
    }
    assert!(project.ok(&["log", "bad"]).out.contains("the reason"));
}

#[test]
fn an_output_that_was_not_written_is_a_failure() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > other", outputs: ["wanted"])})"#);
    let run = project.caco(&["run", "p.ron"]);
    assert!(
        run.code == 1 && run.err.contains("did not write its output 'wanted'; its folder holds other"),
        "{}",
        run.err
    );
}

#[test]
fn a_folder_that_changes_while_a_stage_reads_it_is_not_published() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "cat in/x > out; echo more >> $FILE", inputs: {"in": Path("f")}, outputs: ["out"], pass_env: ["FILE"], isolation: None)})"#,
    );
    project.write("f/x", "text");
    // Large enough not to be copied.
    project.write("f/large", &"x".repeat(17 << 20));
    let run = project.command(&["run", "p.ron"]).env("FILE", project.path().join("f/x")).output().unwrap();
    let run = crate::project::printed(run);
    assert!(run.code == 1 && run.err.contains("was changed while the stage ran; nothing was published"), "{}", run.err);
}

#[test]
fn a_failed_stage_is_retried_under_the_same_key() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "test -e ../once || { touch ../once; exit 1; }; echo 1 > o", outputs: ["o"], run: (retries: 1))})"#,
    );
    let run = project.ok(&["run", "p.ron"]);
    assert!(run.err.contains("tried again in"), "{}", run.err);
    assert!(project.run(&[]).is_empty());
}

#[test]
fn a_stage_that_takes_too_long_fails() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "sleep 60; echo 1 > o", outputs: ["o"], run: (timeout_minutes: 0.005))})"#,
    );
    let run = project.caco(&["run", "p.ron"]);
    assert!(run.code == 1 && run.err.contains("took longer than its time limit of 0.005 minutes"), "{}", run.err);
}

#[test]
fn the_exit_codes_of_a_command_are_its_own() {
    // By these, a worker says that it has stalled or was stopped.
    for code in [70, 75] {
        let project =
            Project::with(&format!(r#"(stages: {{"a": command(shell: "echo 1 > o; exit {code}", outputs: ["o"])}})"#));
        let run = project.caco(&["run", "p.ron"]);
        assert!(run.code == 1 && run.err.contains(&format!("stage 'a' failed: exit code {code}")), "{}", run.err);
    }
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    project.write("cache/VERSION", "99\n");
    let run = project.caco(&["run", "p.ron"]);
    assert!(run.code == 1 && run.err.contains("has layout 99") && run.err.contains("use a newer caco"), "{}", run.err);
}

#[test]
fn a_folder_that_cannot_be_read_is_named() {
    let project =
        Project::with(r#"(stages: {"a": command(shell: "ls d > o", inputs: {"d": Path("d")}, outputs: ["o"])})"#);
    project.write("d/x/f", "1");
    std::os::unix::fs::symlink("..", project.path().join("d/x/up")).unwrap();
    let plan = project.ok(&["plan", "p.ron"]).out;
    assert!(plan.contains("d/x/up is a link that leads back to a folder above it"), "{plan}");
    fs::remove_file(project.path().join("d/x/up")).unwrap();
    let locked = project.path().join("d/x");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // Root can read everything, so there is nothing to test.
    if fs::read_dir(&locked).is_err() {
        assert!(project.ok(&["plan", "p.ron"]).out.contains("cannot read"));
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    for command in ["graph p.ron", "explain command --json", "explain"] {
        let line = format!("'{}' {command} | true; exit ${{PIPESTATUS[0]}}", crate::project::caco_path().display());
        let mut bash = std::process::Command::new("bash");
        assert!(bash.args(["-c", &line]).current_dir(project.path()).status().unwrap().success(), "{command}");
    }
}

#[test]
fn a_pipeline_is_found_by_its_name_here_and_in_its_folder() {
    let pipeline = |word: &str| format!(r#"(stages: {{"{word}": command(shell: "echo 1 > o", outputs: ["o"])}})"#);
    let project = Project::new();
    let stage = |name: &str| project.json(&["plan", name, "--json"])[0]["stage"].as_str().unwrap().to_string();
    for (file, word) in [("p.ron", "here"), ("v1.2.ron", "dotted"), ("pipelines/q.ron", "there"), ("q/f", "folder")] {
        project.write(file, &pipeline(word));
    }
    assert_eq!(
        [stage("p"), stage("p.ron"), stage("v1.2"), stage("q"), stage("q.ron")],
        ["here", "here", "dotted", "there", "there"]
    );
    project.write("pipelines/p.ron", &pipeline("there"));
    assert_eq!([stage("p"), stage("p.ron")], ["there", "here"]);
    let unknown = project.caco(&["plan", "r"]);
    assert!(unknown.err.contains("there are p.ron, pipelines/p.ron, pipelines/q.ron, v1.2.ron"), "{}", unknown.err);
}

#[test]
fn old_names_of_commands_answer_with_the_new_ones() {
    let project = Project::new();
    for (old, new) in [("keys", "signer"), ("crate", "export ro-crate"), ("croissant", "export croissant")] {
        for args in [vec![old, "list"], vec!["-v", old]] {
            let answer = project.caco(&args);
            assert!(
                answer.code == 2 && answer.err.contains(&format!("'caco {old}' is now 'caco {new}'")),
                "{}",
                answer.err
            );
        }
    }
    let below = project.caco(&["data", "keys"]);
    assert!(below.code == 2 && below.err.contains("unrecognized subcommand 'keys'"), "{}", below.err);
}
