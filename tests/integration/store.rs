//! The store under damage.

use crate::project::Project;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

fn project() -> Project {
    let project = Project::with(
        r#"(stages: {
        "a": command(shell: "echo text > o", outputs: ["o"]),
        "b": command(shell: "cat i > o; echo more >> o", inputs: {"i": Stage("a")}, outputs: ["o"]),
    })"#,
    );
    project.run(&[]);
    project
}

fn object_of(project: &Project, stage: &str) -> PathBuf {
    let shown = project.json(&["show", stage, "--json"]);
    shown["result"]["outputs"][0]["object"].as_str().unwrap().into()
}

#[test]
fn an_object_that_is_gone_or_cut_short_is_made_again() {
    let project = project();
    fs::remove_file(object_of(&project, "a")).unwrap();
    assert_eq!(project.run(&[]), ["a"], "`b` reads the same bytes as before");
    let object = object_of(&project, "b");
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "te").unwrap();
    assert_eq!(project.run(&[]), ["b"]);
    assert_eq!(fs::read_dir(project.path().join("cache/quarantine")).unwrap().count(), 1);
}

#[test]
fn a_cut_manifest_is_set_aside_and_the_stage_runs_again() {
    let project = project();
    let folder: PathBuf = project.json(&["show", "a", "--json"])["result"]["folder"].as_str().unwrap().into();
    let manifest = folder.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    fs::remove_dir_all(project.path().join("cache/hosts")).unwrap();
    let run = project.ok(&["run", "p.ron"]);
    assert!(run.err.contains("is damaged") && run.err.contains("1 stage run"), "{}", run.err);
}

#[test]
fn accelerators_can_go_at_any_time() {
    let project = project();
    fs::remove_dir_all(project.path().join("cache/hosts")).unwrap();
    assert!(project.run(&[]).is_empty());
    fs::remove_dir_all(project.path().join("cache/names")).unwrap();
    assert!(project.run(&[]).is_empty());
    assert!(project.ok(&["why", "a"]).out.contains("will not run"));
}

#[test]
fn results_are_read_only() {
    let project = project();
    let mode = fs::metadata(object_of(&project, "a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
}
