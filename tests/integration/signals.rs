//! Interrupts and kills.

use crate::{
    process::{alive, signal, start_of, wait_for},
    project::{Project, printed},
};
use std::{process::Stdio, thread::sleep, time::Duration};

const SLOW: &str = r#"(stages: {
    "slow": command(shell: "echo $$ > $SIGNAL/pid; sleep 300 & echo $! > $SIGNAL/child; touch $SIGNAL/started; wait; echo 1 > o", outputs: ["o"], pass_env: ["SIGNAL"], isolation: None),
    "after": command(shell: "cat i > o", inputs: {"i": Stage("slow")}, outputs: ["o"]),
})"#;

/// Starts the slow pipeline and sends signals to the runner once the stage is running.
fn interrupted(signals: &[i32]) -> (Project, crate::project::Printed) {
    let project = Project::with(SLOW);
    let child = project
        .command(&["run", "p.ron"])
        .env("SIGNAL", project.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the stage to start", || project.path().join("started").exists());
    for s in signals {
        signal(child.id(), *s);
        sleep(Duration::from_millis(50));
    }
    let printed = printed(child.wait_with_output().unwrap());
    wait_for("the stage to end", || !alive(&project.path().join("pid")) && !alive(&project.path().join("child")));
    (project, printed)
}

#[test]
fn an_interrupt_stops_the_run_and_says_how_to_go_on() {
    for (sent, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let (project, printed) = interrupted(&[sent]);
        assert_eq!(printed.code, code, "{}", printed.err);
        assert!(printed.err.contains("stopped; the same command resumes from the last checkpoints"), "{}", printed.err);
        assert!(project.holds_no_lock());
    }
}

#[test]
fn the_children_of_a_killed_runner_do_not_survive() {
    let (project, printed) = interrupted(&[libc::SIGKILL]);
    assert_eq!(printed.code, -1);
    // Nothing was published, and the lock is free.
    let plan = project.json(&["plan", "p.ron", "--json", "slow"]);
    assert_eq!(plan[0]["state"], "run");
}

#[test]
fn how_an_attempt_ended_is_reported_when_the_next_one_starts() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "if test -e $GO/fail; then exit 3; fi; while ! test -e $GO/go; do sleep 0.02; done; echo 1 > o",
            outputs: ["o"], pass_env: ["GO"], isolation: None)})"#,
    );
    let start = || {
        let mut command = project.command(&["run", "p.ron"]);
        command.env("GO", project.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = start();
    assert!(start_of("a  ", &mut first).unwrap().ends_with("a  started"));
    signal(first.id(), libc::SIGKILL);
    first.wait().unwrap();
    // The state after a kill while the next attempt's folder is being prepared.
    let out = glob::glob(project.path().join("cache/work/**/out").to_str().unwrap()).unwrap().next().unwrap().unwrap();
    std::fs::remove_dir_all(out).unwrap();
    project.write("fail", "");
    let text = printed(start().wait_with_output().unwrap()).err;
    assert!(text.contains("a  started again after it was stopped\n") && text.contains("exit code 3"), "{text}");
    std::fs::remove_file(project.path().join("fail")).unwrap();
    project.write("go", "");
    let text = printed(start().wait_with_output().unwrap()).err;
    assert!(text.contains("a  started again after it failed\n") && text.contains("a  done"), "{text}");
}

#[test]
fn a_time_limit_stops_the_run_cleanly() {
    let project = Project::with(r#"(stages: {"a": command(shell: "sleep 60; echo 1 > o", outputs: ["o"])})"#);
    let run = project.caco(&["run", "p.ron", "--max-time", "0.005"]);
    assert_eq!(run.code, 75, "{}", run.err);
}

#[test]
fn two_runs_over_one_store_compute_each_key_once() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "echo x >> $COUNT; sleep 0.5; echo 1 > o", outputs: ["o"], pass_env: ["COUNT"], isolation: None)})"#,
    );
    let count = project.path().join("count");
    let start = || project.command(&["run", "p.ron"]).env("COUNT", &count).stderr(Stdio::null()).spawn().unwrap();
    let mut runs = [start(), start(), start()];
    runs.iter_mut().for_each(|run| assert!(run.wait().unwrap().success()));
    assert_eq!(project.read("count"), "x\n");
}
