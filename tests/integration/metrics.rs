//! What a command measures: how its file is read, shown and compared.

use crate::{
    process::{PATIENCE, wait_for},
    project::{Printed, Project, printed},
};
use std::{fs, path::PathBuf, process::Stdio, time::Instant};

/// A stage that writes this text as its metrics.
fn writes(text: &str) -> Project {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    Project::with(&format!(
        "(stages: {{\"s\": command(shell: \"printf %s '{text}' > m.json\", outputs: [], metrics: \"m.json\")}})"
    ))
}

/// Runs p.ron, which must end without help.
fn run(project: &Project) -> Printed {
    let mut command = project.command(&["run", "p.ron", "-k"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    wait_for("the run to end", || {
        if begun.elapsed() > PATIENCE / 3 {
            child.kill().unwrap();
        }
        child.try_wait().unwrap().is_some()
    });
    printed(child.wait_with_output().unwrap())
}

#[test]
fn what_is_no_regular_file_is_refused_and_waits_for_nobody() {
    for (line, field, message) in [
        ("mkfifo m.json", r#"outputs: [], metrics: "m.json""#, "it is not a regular file"),
        (
            "echo '{\\\"a\\\": 1}' > m.json; mkfifo metrics.jsonl",
            r#"outputs: [], metrics: "m.json""#,
            "it is not a regular file",
        ),
        ("mkfifo o", r#"outputs: ["o"]"#, "neither a file nor a folder"),
        ("mkdir o; mkfifo o/inner", r#"outputs: ["o"]"#, "neither a file nor a folder"),
        ("echo 1 > o; rm ../log; mkfifo ../log", r#"outputs: ["o"]"#, "is no longer a file"),
        ("echo 1 > o; mkdir ../byproducts; mkfifo ../byproducts/p", r#"outputs: ["o"]"#, "neither a file nor a folder"),
        ("rm -f ../log ../failed.json; mkfifo ../log ../failed.json; exit 1", r#"outputs: ["o"]"#, "exit code 1"),
    ] {
        let project = Project::with(&format!(
            r#"(stages: {{"s": command(shell: "{line}", {field}), "other": command(shell: "echo 1 > o", outputs: ["o"])}})"#
        ));
        for _ in 0..2 {
            let printed = run(&project);
            assert!(printed.code == 1 && printed.err.contains(message), "{line}: {printed:?}");
            assert!(printed.err.contains("other  done") || printed.err.contains("1 cached"), "{line}: {printed:?}");
        }
        project.ok(&["cache", "gc", "--keep-size", "0", "--yes"]);
    }
}

#[test]
fn numbers_that_are_not_finite_are_kept_and_shown_in_words() {
    let project = writes("\u{feff}{\"loss\": NaN, \"top\": Infinity, \"bottom\": -Infinity, \"good\": 0.5}");
    project.run(&[]);
    let shown = project.ok(&["show", "s"]).out;
    for line in ["bottom  -inf\n", "good  0.500000\n", "loss  nan\n", "top  inf\n"] {
        assert!(shown.contains(line), "{shown}");
    }
    let metrics = project.json(&["show", "s", "--json"])["result"]["metrics"].clone();
    let values: Vec<String> = metrics.as_array().unwrap().iter().map(|m| m["value"].to_string()).collect();
    assert_eq!(values, ["\"-inf\"", "0.5", "\"nan\"", "\"inf\""]);
    project.ok(&["audit", "p.ron"]);
}

#[test]
fn a_number_that_would_be_rounded_is_an_error_that_names_it() {
    for word in ["9007199254740993", "18446744073709551617"] {
        let printed = writes(&format!("{{\"n\": {word}}}")).caco(&["run", "p.ron"]);
        assert!(printed.code == 1 && printed.err.contains(word), "{}", printed.err);
    }
}

#[test]
fn a_diverged_point_is_never_the_best_and_is_sorted_last() {
    let project = Project::with(
        r#"(
    each_variant: {"train": command(
        argv: ["python3", "t.py"], inputs: {"t.py": Path("t.py")}, outputs: [], metrics: "m.json", parameters: {"k": 0})},
    sweeps: {"s": (axes: {"k": (set: ["train.parameters.k"], values: [0, 1, 2, 3])})},
)"#,
    );
    project.write(
        "t.py",
        "import json, sys\nk = int(sys.argv[1][4:])\njson.dump({'loss': [float('-inf'), 0.5, float('nan'), 0.25][k]}, open('m.json', 'w'))\n",
    );
    project.run(&[]);
    for lowest in [&["--lowest"][..], &[]] {
        let table = project.json(&[&["sweep", "p.ron", "--sort", "loss", "--json"], lowest].concat());
        let rows = table[0]["rows"].as_array().unwrap();
        let order: Vec<&str> = rows.iter().map(|row| row["axes"]["k"].as_str().unwrap()).collect();
        assert_eq!(order[..2], ["3", "1"], "{table}");
        assert_eq!(table[0]["best"], 0);
    }
    let text = project.ok(&["sweep", "p.ron"]).out;
    assert!(text.contains(" nan ") && text.contains(" -inf "), "{text}");
    assert!(project.ok(&["sweep", "p.ron", "--csv"]).out.contains(",nan,"), "CSV has words too");
}

#[test]
fn a_missing_output_leaves_the_others_in_the_folder() {
    let project = Project::with(r#"(stages: {"s": command(shell: "echo 1 > there", outputs: ["there", "missing"])})"#);
    let printed = project.caco(&["run", "p.ron"]);
    assert!(printed.code == 1 && printed.err.contains("did not write its output 'missing'"), "{}", printed.err);
    assert_eq!(fs::read_to_string(out(&project).join("there")).unwrap(), "1\n");
}

/// The output folder of the stage that failed.
fn out(project: &Project) -> PathBuf {
    let folders = fs::read_dir(project.path().join("cache/work")).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| folder.join("out")).find(|out| out.is_dir()).unwrap()
}

/// A stage that counts its runs, and whose metrics are wrong and one output missing.
fn faulty() -> (Project, PathBuf) {
    let project = Project::new();
    let runs = project.path().join("runs");
    let line = format!("echo run >> '{}'; echo model > model; echo '{{\\\"a\\\": oops}}' > m.json", runs.display());
    project.write(
        "p.ron",
        &format!(
            r#"(stages: {{"a": command(shell: "{line}", outputs: ["model", "late"], metrics: "m.json", isolation: None, run: (retries: 2))}})"#
        ),
    );
    let failed = project.caco(&["run", "p.ron"]);
    assert!(failed.code == 1 && failed.err.contains("which only collects it"), "{failed:?}");
    let out = out(&project);
    (project, out)
}

#[test]
fn what_could_not_be_collected_is_collected_without_running_again() {
    let (project, out) = faulty();
    fs::write(out.join("m.json"), r#"{"a": 1}"#).unwrap();
    let failed = project.caco(&["run", "p.ron"]);
    assert!(failed.code == 1 && failed.err.contains("did not write its output 'late'"), "{failed:?}");
    fs::write(out.join("late"), "x").unwrap();
    let ran = project.ok(&["run", "p.ron"]);
    assert!(ran.err.contains("a  is collected; its program ran before"), "{ran:?}");
    assert_eq!(project.read("runs"), "run\n", "the program is not run again");
    assert_eq!(project.ok(&["get", "a/model", "-", "-p", "p.ron"]).out, "model\n");
    let record = &project.json(&["show", "a", "--json"])["result"]["made"]["collected_later"];
    assert_eq!(record["edited"], serde_json::json!(["late", "m.json"]));
    let audit = project.ok(&["audit", "p.ron"]);
    assert!(
        audit.out.contains("edited after its program ended, before they were collected: late, m.json"),
        "{audit:?}"
    );
}

#[test]
fn what_could_not_be_collected_is_run_again_if_that_is_asked_for() {
    let (project, out) = faulty();
    fs::write(out.join("m.json"), r#"{"a": 1}"#).unwrap();
    project.caco(&["run", "p.ron", "--force", "a"]);
    assert_eq!(project.read("runs"), "run\nrun\n");
}
