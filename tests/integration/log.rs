//! `caco log`, and `--follow`.

use crate::{
    process,
    project::{Printed, Project, printed},
};
use std::process::{Child, Stdio};

fn start(project: &Project, args: &[&str]) -> Child {
    let mut command = project.command(args);
    command.env("GO", project.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Printed {
    printed(child.wait_with_output().unwrap())
}

fn wait_for(project: &Project, file: &str) {
    process::wait_for(file, || project.path().join(file).exists());
}

/// Fails at the first try, and waits at the second.
const RETRIED: &str = r#"(stages: {
    "before": command(shell: "touch $GO/before; while ! test -e $GO/ready; do sleep 0.02; done; echo 1 > o", outputs: ["o"], pass_env: ["GO"], isolation: None),
    "a": command(
        shell: "if ! test -e $GO/tried; then echo first; touch $GO/tried; exit 1; fi; echo second; while ! test -e $GO/go; do sleep 0.02; done; echo last; LAST",
        inputs: {"i": Stage("before")}, outputs: ["o"], pass_env: ["GO"], isolation: None, run: (retries: 1)),
})"#;

#[test]
fn a_log_is_followed_from_before_its_stage_starts_across_attempts_to_the_end() {
    let project = Project::with(&RETRIED.replace("LAST", "echo 1 > o"));
    let run = start(&project, &["run", "p.ron"]);
    wait_for(&project, "before");
    let followed = start(&project, &["log", "a", "--follow"]);
    project.write("ready", "");
    wait_for(&project, "tried");
    // A later follower also sees the first attempt.
    let late = start(&project, &["log", "a", "-f"]);
    project.write("go", "");
    for followed in [end(followed), end(late)] {
        assert_eq!((followed.code, followed.out.as_str()), (0, "first\nsecond\nlast\n"), "{}", followed.err);
    }
    assert_eq!(end(run).code, 0);
    assert_eq!(end(start(&project, &["log", "a", "-f"])).out, "first\nsecond\nlast\n", "it has ended");
}

#[test]
fn a_failure_is_reported_at_the_end() {
    let project = Project::with(&RETRIED.replace("LAST", "exit 9"));
    ["ready", "go"].iter().for_each(|file| project.write(file, ""));
    let run = start(&project, &["run", "p.ron"]);
    wait_for(&project, "tried");
    let followed = end(start(&project, &["log", "a", "-f"]));
    assert_eq!((followed.code, followed.out.as_str()), (1, "first\nsecond\nlast\n"), "{}", followed.err);
    assert_eq!(followed.err, "stage 'a' failed: exit code 9\n");
    assert_eq!(end(run).code, 1);
    let after = end(start(&project, &["log", "a", "-f"]));
    assert_eq!((after.code, after.out.as_str(), after.err), (1, "first\nsecond\nlast\n", followed.err));
}

#[test]
fn follow_does_not_wait_for_a_stage_that_nobody_runs() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    project.ok(&["plan", "p.ron"]);
    let followed = project.caco(&["log", "a", "-f", "--pipeline", "p.ron"]);
    assert!(
        followed.code == 1 && followed.err.contains("no run is computing it\nhelp: run it: caco run p.ron 'a'"),
        "{}",
        followed.err
    );
}

#[test]
fn a_stage_without_spans_says_so() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    project.run(&[]);
    let spans = project.caco(&["log", "a", "--json"]);
    assert!(spans.code == 1 && spans.err.contains("stage 'a' left no spans"), "{}", spans.err);
}

#[test]
fn a_tensor_stage_leaves_spans_with_their_durations() {
    let project = Project::with(
        r#"(stages: {
        "images": synthesize(classes: 2, train: 8, test: 4, size: 40),
        "index": index(root: Stage("images/train")),
        "encoder": init_encoder(model: (arch: ResNet18, width: 16, hidden: 32, dim: 16), seed: 3),
        "features": features(encoder: "encoder", index: "index", resize: 40, crop: 32),
    })"#,
    );
    project.run(&[]);
    let spans = project.ok(&["log", "features", "--json"]).out;
    let spans: Vec<serde_json::Value> = spans.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let closed = |name: &str| spans.iter().find(|s| s["span"]["name"] == name && s["fields"]["message"] == "close");
    for name in ["load", "extract", "stage"] {
        let span = closed(name).unwrap_or_else(|| panic!("no span {name} in {spans:?}"));
        assert!(span["fields"]["time.busy"].as_str().is_some_and(|time| time.ends_with('s')), "{span}");
    }
    assert_eq!(closed("stage").unwrap()["span"]["kind"], "features");
}

#[test]
fn a_failure_shows_the_log_of_its_own_attempt() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "echo attempt; if ! test -e $GO/mended; then echo old trouble; fi; exit 3", outputs: ["o"], pass_env: ["GO"], isolation: None)})"#,
    );
    let run = || end(start(&project, &["run", "p.ron"])).err;
    assert!(run().contains("| old trouble\n"));
    project.write("mended", "");
    let text = run();
    assert!(text.contains("  | attempt\n") && !text.contains("old trouble"), "{text}");
}
