//! `caco cache` and `caco diff`.

use crate::project::Project;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn project() -> Project {
    let project = Project::with(
        r#"(stages: {
        "a": command(shell: "echo text > o", outputs: ["o"]),
        "b": command(shell: "mkdir d; cat i > d/one; echo two > d/two", inputs: {"i": Stage("a")}, outputs: ["d"]),
        "c": command(shell: "cat d/two d/one > o", inputs: {"d": Stage("b")}, outputs: ["o"]),
    })"#,
    );
    project.run(&[]);
    project
}

fn key_of(project: &Project, stage: &str) -> String {
    project.json(&["show", stage, "--json"])["result"]["key"].as_str().unwrap().into()
}

fn object_of(project: &Project, stage: &str) -> String {
    project.json(&["show", stage, "--json"])["result"]["outputs"][0]["object"].as_str().unwrap().into()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

/// The object of the file `two` inside the folder that `b` wrote.
fn two(project: &Project) -> std::path::PathBuf {
    let listing = fs::read_to_string(object_of(project, "b")).unwrap();
    let line = listing.lines().find(|line| line.ends_with(" two")).unwrap();
    project.path().join("cache/objects").join(&line[..2]).join(&line[2..64])
}

#[test]
fn a_flipped_bit_is_found_quarantined_and_computed_again() {
    let project = project();
    assert_eq!(project.ok(&["cache", "verify"]).out, "3 records, 4 objects, 160 B read: all hold\n");
    flip(&two(&project));
    let found = project.caco(&["cache", "verify", "--json"]);
    let check: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((found.code, check["findings"].as_array().unwrap().len()), (1, 1), "{}", found.out);
    assert_eq!(check["findings"][0]["keys"][0], key_of(&project, "b").as_str());
    // The file, and the listing that contains it.
    assert_eq!(fs::read_dir(project.path().join("cache/quarantine")).unwrap().count(), 2);
    // `b` wrote the same bytes as before, so `c` is not touched.
    assert_eq!(project.run(&[]), ["b"]);
    project.ok(&["cache", "verify"]);
}

#[test]
fn what_a_stage_is_about_to_read_is_compared_with_its_digest() {
    let project = project();
    flip(&two(&project));
    project.edit("cat d/two d/one", "cat d/one d/two");
    // `verify` was not called.
    assert_eq!(project.run(&[]), ["b", "c"]);
    assert_eq!(project.json(&["show", "c", "--json"])["result"]["outputs"][0]["bytes"], 9);
    project.ok(&["cache", "verify"]);
}

#[test]
fn a_collection_removes_nothing_without_confirmation() {
    let project = project();
    let old = key_of(&project, "c");
    project.edit("cat d/two d/one", "cat d/one d/two; echo more");
    project.run(&[]);
    // Only the last key of each stage is kept, so the older result of `c` is unreachable.
    let text = project.ok(&["cache", "gc", "--keep", "p.ron"]).out;
    assert!(
        text.contains(&old[..12]) && text.contains("1 result and 1 object can go") && text.contains("--yes"),
        "{text}"
    );
    let again = project.ok(&["cache", "gc", "--keep", "p.ron"]).out;
    assert_eq!(text, again, "a dry run removes nothing");
    let done = project.ok(&["cache", "gc", "--keep", "p.ron", "--yes"]).out;
    assert!(done.contains("1 result and 1 object removed, 9 B; 3 results stay"), "{done}");
    assert!(project.run(&[]).is_empty());
    project.ok(&["cache", "verify"]);
    project.ok(&["cache", "gc", "--keep-size", "0", "--yes"]);
    assert_eq!(project.run(&[]), ["a", "b", "c"]);
}

#[test]
fn checkpoints_of_unfinished_stages_are_removed_by_age() {
    let project =
        Project::with(r#"(stages: {"a": command(shell: "echo half > ../checkpoint; exit 1", outputs: ["o"])})"#);
    assert_eq!(project.caco(&["run", "p.ron"]).code, 1);
    let work = || fs::read_dir(project.path().join("cache/work")).unwrap().count();
    assert!(project.ok(&["cache", "gc", "--older-than", "1h", "--yes"]).out.contains("0 results"));
    assert_eq!(work(), 1, "the stage can go on");
    let text = project.ok(&["cache", "gc", "--older-than", "0s"]).out;
    assert!(text.contains("1 folder of unfinished stages can go") && work() == 1, "{text}");
    project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]);
    assert_eq!(work(), 0);
}

#[test]
fn a_pinned_result_is_kept() {
    let project = project();
    project.ok(&["cache", "pin", "b", "--because", "the paper's"]);
    assert!(project.ok(&["cache", "ls", "b"]).out.contains("pinned"));
    let text = project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]).out;
    assert!(text.contains("2 results") && text.contains("1 of them only because"), "{text}");
    assert_eq!(project.run(&[]), ["a", "c"]);
    project.ok(&["cache", "unpin", "b"]);
    assert!(project.caco(&["cache", "unpin", "b"]).err.contains("is not pinned"));
}

#[test]
fn results_used_by_a_run_in_progress_are_kept() {
    let project = project();
    project.write(
        "q.ron",
        r#"(stages: {
        "a": command(shell: "echo text > o", outputs: ["o"]),
        "slow": command(shell: "while ! test -e ../../../go; do sleep 0.02; done; cat i > o", inputs: {"i": Stage("a")}, outputs: ["o"]),
    })"#,
    );
    let mut run = project.command(&["run", "q.ron"]).spawn().unwrap();
    let started = || fs::read_dir(project.path().join("cache/work")).is_ok_and(|mut d| d.next().is_some());
    while !started() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let text = project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]).out;
    assert!(text.contains("2 results") && text.contains("1 of them only because"), "{text}");
    project.write("cache/go", "");
    assert!(run.wait().unwrap().success());
    // The leftovers of the run protect nothing.
    let uses = fs::read_dir(project.path().join("cache/uses")).unwrap().flatten();
    let left: Vec<_> = uses.map(|e| e.file_name()).filter(|n| !n.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn results_are_copied_between_stores_with_their_digests_checked() {
    let project = project();
    let elsewhere = project.path().join("elsewhere");
    let to = elsewhere.to_str().unwrap();
    let text = project.ok(&["cache", "copy", "--to", to, "b"]).out;
    assert!(text.contains("2 records copied") && text.contains("3 objects"), "{text}");
    assert!(project.ok(&["cache", "copy", "--to", to, "--all"]).out.contains("1 record copied"));
    // The other store already has everything, and the same for copying back.
    let there = project.json(&["run", "p.ron", "--json", "--cache", to]);
    assert_eq!(there["hits"], 3);
    fs::remove_dir_all(project.path().join("cache")).unwrap();
    project.ok(&["cache", "copy", "--from", to, "--all"]);
    assert!(project.run(&[]).is_empty());
    project.ok(&["cache", "verify"]);
    // A damaged object is an error, and no record is copied.
    flip(Path::new(&object_of(&project, "a")));
    flip(Path::new(&object_of(&project, "c")));
    let third = project.path().join("third");
    let refused = project.caco(&["cache", "copy", "--to", third.to_str().unwrap(), "--all"]);
    assert!(
        refused.code == 1 && refused.err.contains("its bytes do not match the digest in its name"),
        "{}",
        refused.err
    );
    assert!(project.ok(&["cache", "ls", "--cache", third.to_str().unwrap()]).out.is_empty());
    let nowhere = project.caco(&["cache", "copy", "--from", "nowhere", "--all"]);
    assert!(nowhere.err.contains("nowhere is not a store"), "{}", nowhere.err);
}

#[test]
fn two_records_under_one_key_are_both_kept() {
    let project = Project::with(r#"(stages: {"a": command(shell: "date +%N > o; echo $$ >> o", outputs: ["o"])})"#);
    project.run(&[]);
    project.ok(&["run", "p.ron", "--cache", "other"]);
    let text = project.ok(&["cache", "copy", "--from", "other", "--all"]).out;
    assert!(text.contains("now has records of different bytes; the older one stands"), "{text}");
    assert!(project.ok(&["cache", "ls"]).out.contains("2 records: they diverge"));
    assert!(project.run(&[]).is_empty());
}

#[test]
fn the_store_is_listed_and_weighed() {
    let project = project();
    let listed = project.json(&["cache", "ls", "--json"]);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|r| r["made"]["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "b", "a"], "the newest first");
    let weighed = project.json(&["cache", "du", "--json"]);
    assert_eq!(weighed["kinds"]["command"]["results"], 3);
    assert_eq!(weighed["kinds"]["command"]["bytes"], 5 + 9 + 9);
}

#[test]
fn two_results_are_compared_by_preimage_and_by_bytes() {
    let project = project();
    let old = key_of(&project, "c");
    project.edit("cat d/two d/one", "cat d/one d/two");
    project.run(&[]);
    let text = project.ok(&["diff", &old[..12], "c"]).out;
    assert!(text.contains("shell: \"cat d/two d/one > o\" → \"cat d/one d/two > o\""), "{text}");
    assert!(text.contains("output o: ") && text.contains("(9 bytes) → "), "{text}");
    assert!(project.ok(&["diff", "c", "c"]).out.contains("asked for the same"));
    let wrong = project.caco(&["diff", "c", "zz"]);
    assert!(wrong.code == 1 && wrong.err.contains("no stage is called 'zz'"), "{}", wrong.err);
}

#[test]
fn a_run_says_how_long_it_will_take_by_earlier_runs() {
    let project = project();
    project.edit("echo two", "echo 2");
    let run = project.ok(&["run", "p.ron"]);
    assert!(run.err.contains("2 stages to run at most: ") && run.err.contains("by earlier runs"), "{}", run.err);
}
