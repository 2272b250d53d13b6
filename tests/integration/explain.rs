//! `caco explain`, `caco completions` and `caco man`.

use crate::project::Project;

#[test]
fn a_kind_is_explained_field_by_field() {
    let project = Project::with("(stages: {})");
    insta::assert_snapshot!(project.ok(&["explain", "command"]).out);
    // A type, an enum's values, and a default among them.
    let pretrain = project.ok(&["explain", "pretrain"]).out;
    for part in ["objective: Objective (default CaCo)", "\n  CooperativeOnly\n", "batch: whole number (must be given)"]
    {
        assert!(pretrain.contains(part), "no {part} in\n{pretrain}");
    }
    assert_eq!(project.json(&["explain", "knn", "--json"])["properties"]["k"]["type"], "integer");
    assert!(project.ok(&["explain"]).out.lines().all(|line| line.len() > 20));
    let wrong = project.caco(&["explain", "pretrian"]);
    assert!(wrong.code == 1 && wrong.err.contains("did you mean 'pretrain'"), "{}", wrong.err);
}

#[test]
fn shells_complete_every_command() {
    let project = Project::with("(stages: {})");
    for shell in ["bash", "zsh", "fish"] {
        assert!(project.ok(&["completions", shell]).out.contains("explain"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let project = Project::with("(stages: {})");
    project.ok(&["man", "pages/man1"]);
    assert!(project.read("pages/man1/caco.1").contains("caco\\-history(1)"), "{}", project.read("pages/man1/caco.1"));
    let page = project.read("pages/man1/caco-cache-gc.1");
    assert!(page.contains(".SH OPTIONS") && page.contains("older"), "{page}");
}
