//! `caco history`: the records of runs.

use crate::{
    process::{signal, wait_for},
    project::Project,
};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Stdio};

const PIPELINE: &str = r#"(stages: {
    "a": command(shell: "sleep 0.3; echo 1 > o", outputs: ["o"]),
    "b": command(shell: "cat i > o", inputs: {"i": Stage("a")}, outputs: ["o"]),
})"#;

fn history(project: &Project) -> Vec<Value> {
    project.json(&["history", "--json"]).as_array().unwrap().clone()
}

fn records(project: &Project) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(project.path().join("cache/runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

macro_rules! assert_printed {
    ($text:expr) => {
        insta::with_settings!({filters => vec![
            (r"\d{8}T\d{6}\.\d{3}Z-\d+", "RUN"),
            (r"\(/[^ ]*/p\.ron\)", "(p.ron)"),
            (r"(?m)^started .*", "started    WHEN on HOST"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (UTC|[+-]\d\d:\d\d)", "WHEN"),
            (r" +\d+\.\d+ s", " TIME"),
            (r"\b[0-9a-f]{12}\b", "KEY"),
            (r" {2,}", "  "),
        ]}, { insta::assert_snapshot!($text) })
    };
}

#[test]
fn every_run_is_listed_with_its_attempts_hits_and_saved_time() {
    let project = Project::with(PIPELINE);
    assert_eq!(project.ok(&["history"]).out, "");
    project.run(&[]);
    assert!(project.run(&[]).is_empty());
    project.caco(&["run", "p.ron", "b", "--set", "b.shell=\"cat i; exit 7\""]);
    assert_printed!(project.ok(&["history"]).out);
    let runs = history(&project);
    let seconds = |run: &Value| run["saved"]["seconds"].as_f64().unwrap();
    assert_eq!(runs.iter().map(|run| run["ended"]["hits"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 0]);
    assert!(seconds(&runs[1]) > seconds(&runs[0]) && seconds(&runs[0]) >= 0.3 && seconds(&runs[2]) == 0.0, "{runs:?}");
    let id = runs[0]["id"].as_str().unwrap();
    assert_printed!(project.ok(&["history", id]).out);
    assert_eq!(project.json(&["history", id, "--json"])["attempts"][0]["why"], "exit code 7");
    // Filtered by pipeline, and limited in number.
    assert_eq!(project.ok(&["history", "p", "-n", "2"]).out.lines().count(), 3);
    let other = project.caco(&["history", "q"]);
    assert!(other.code == 1 && other.err.contains("no run of a pipeline 'q'"), "{}", other.err);
}

#[test]
fn removed_results_leave_a_lower_bound() {
    let project = Project::with(PIPELINE);
    project.run(&[]);
    project.run(&[]);
    project.ok(&["cache", "gc", "--keep-size", "0", "--yes"]);
    assert!(project.ok(&["history"]).out.contains("at least 0.00 s"), "{}", project.ok(&["history"]).out);
}

#[test]
fn killed_stopped_and_active_runs_are_distinguished() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "touch $GO/started; sleep 300", outputs: ["o"], pass_env: ["GO"], isolation: None)})"#,
    );
    let outcome = || history(&project)[0]["outcome"].as_str().unwrap().to_string();
    for (sent, expected) in [(libc::SIGKILL, "killed"), (libc::SIGTERM, "stopped by signal 15")] {
        let _ = fs::remove_file(project.path().join("started"));
        let mut run =
            project.command(&["run", "p.ron"]).env("GO", project.path()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the stage to start", || project.path().join("started").exists());
        assert_eq!(outcome(), "running");
        signal(run.id(), sent);
        run.wait().unwrap();
        assert_eq!(outcome(), expected);
    }
    assert_eq!(history(&project)[0]["attempts"][0]["outcome"], "stopped");
}

#[test]
fn the_oldest_records_are_removed_except_those_of_active_runs() {
    let project = Project::with(PIPELINE);
    project.run(&[]);
    let whole = fs::read(&records(&project)[0]).unwrap();
    let old = |n: u32| project.path().join(format!("cache/runs/20200101T000000.{n:03}Z-1.jsonl"));
    (0..999).for_each(|n| fs::write(old(n), &whole).unwrap());
    // One that is still in progress, and older than all others.
    let long = project.path().join("cache/runs/20190101T000000.000Z-1.jsonl");
    fs::write(&long, &whole).unwrap();
    let held = fs::File::open(&long).unwrap();
    held.lock().unwrap();
    project.run(&[]);
    let left = records(&project);
    assert_eq!((left.len(), &left[0]), (1001, &long));
    assert!(!old(0).exists() && old(1).exists());
}

#[test]
fn a_record_that_cannot_be_written_stops_no_run() {
    let project = Project::with(PIPELINE);
    project.write("cache/runs", "no folder");
    assert_eq!(project.run(&[]), ["a", "b"]);
}

#[test]
fn people_read_local_time_and_programs_utc() {
    let project = Project::with(PIPELINE);
    project.run(&[]);
    let run = history(&project)[0].clone();
    let made = project.json(&["show", "a", "--json"])["result"]["made"].clone();
    let id = run["id"].as_str().unwrap();
    let started = [&run["began"]["started"], &run["began"]["started"], &made["started"]];
    for (args, utc) in [&["history"][..], &["history", id], &["show", "a"]].into_iter().zip(started) {
        let utc = utc.as_str().unwrap();
        let printed = |zone: &str| {
            let output = project.command(args).env("TZ", zone).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let plain = format!("{} {} UTC", &utc[..10], &utc[11..19]);
        assert!(utc.ends_with('Z') && printed("UTC").contains(&plain), "{}", printed("UTC"));
        assert!(
            printed("<xyz>-05").contains(" +05:00") && !printed("<xyz>-05").contains(&plain),
            "{}",
            printed("<xyz>-05")
        );
    }
}
