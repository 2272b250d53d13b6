//! What reruns, and what does not.

use crate::project::Project;

const CHAIN: &str = r#"(
    stages: {
        "a": command(shell: "cat in > out", inputs: {"in": Path("source.txt")}, outputs: ["out"]),
        "b": command(shell: "tr a-z A-Z < x > out", inputs: {"x": Stage("a")}, outputs: ["out"]),
        "c": command(shell: "wc -c < x > out", inputs: {"x": Stage("b/out")}, outputs: ["out"]),
        "other": command(shell: "echo other > out", outputs: ["out"]),
    },
)"#;

fn chain() -> Project {
    let project = Project::with(CHAIN);
    project.write("source.txt", "hello");
    assert_eq!(project.run(&[]), ["a", "b", "c", "other"]);
    project
}

#[test]
fn a_second_run_runs_nothing() {
    let project = chain();
    assert!(project.run(&[]).is_empty());
    assert!(project.ok(&["run", "p.ron"]).err.contains("nothing to do"));
}

#[test]
fn a_changed_parameter_reruns_its_stage_and_what_depends_on_it() {
    let project = chain();
    project.edit("tr a-z A-Z", "tr a-y A-Y");
    // `b` gives the same bytes, since the text has no z, so its dependents are cache hits.
    assert_eq!(project.run(&[]), ["b"]);
    project.edit("tr a-y A-Y < x", "rev < x");
    assert_eq!(project.run(&[]), ["b", "c"]);
}

#[test]
fn a_changed_source_file_reruns_what_reads_it() {
    let project = chain();
    project.write("source.txt", "HELLO");
    assert_eq!(project.run(&[]), ["a", "b"], "`b` yields the same letters as before, so `c` is cut off");
    project.write("source.txt", "longer");
    assert_eq!(project.run(&[]), ["a", "b", "c"]);
    project.write("source.txt", "hello");
    assert!(project.run(&[]).is_empty(), "the first results are still there");
}

#[test]
fn what_is_not_part_of_the_key_reruns_nothing() {
    let project = chain();
    project.edit("(\n    stages", "// A comment.\n(\n    stages");
    assert!(project.run(&[]).is_empty(), "a comment");
    let text = project.read("p.ron");
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().position(|l| l.contains("\"other\"")).unwrap();
    lines.swap(3, last);
    project.write("p.ron", &lines.join("\n"));
    assert!(project.run(&[]).is_empty(), "another order");
    std::fs::rename(project.path().join("source.txt"), project.path().join("moved.txt")).unwrap();
    project.edit("source.txt", "moved.txt");
    assert!(project.run(&[]).is_empty(), "a renamed path");
    project.edit("\"b\":", "\"renamed\":");
    project.edit("Stage(\"b/out\")", "Stage(\"renamed\")");
    assert!(project.run(&[]).is_empty(), "a renamed stage");
    project.write("moved.txt", "hello");
    assert!(project.run(&[]).is_empty(), "a touched file");
    project.edit("shell: \"echo other", "run: (retries: 2, timeout_minutes: 5), shell: \"echo other");
    assert!(project.run(&["-j", "1"]).is_empty(), "how it is run");
}

#[test]
fn why_names_the_field_and_both_values() {
    let project = chain();
    project.edit("tr a-z A-Z", "tr a-z B-ZA");
    let why = project.ok(&["why", "b"]).out;
    assert!(why.contains(r#"shell: "tr a-z A-Z < x > out" → "tr a-z B-ZA < x > out"  (p.ron:4)"#), "{why}");
    let why = project.ok(&["why", "c"]).out;
    assert!(why.contains("'c' (p.ron:5) may run") && why.contains("'b': shell"), "{why}");
}

#[test]
fn why_names_the_files_of_a_folder_that_changed() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "ls d > out", inputs: {"d": Path("data")}, outputs: ["out"])})"#,
    );
    project.write("data/x/1", "one");
    project.write("data/2", "two");
    project.run(&[]);
    project.write("data/x/1", "ONE");
    project.write("data/3", "three");
    let why = project.ok(&["why", "a"]).out;
    assert!(why.contains("input d: 2 files changed, first: 3 added"), "{why}");
}

#[test]
fn variants_share_what_is_equal_and_differ_in_the_rest() {
    let project = Project::with(
        r#"(
        stages: {"data": command(shell: "seq 5 > out", outputs: ["out"])},
        each_variant: {
            "prepare": command(shell: "sort < d > out", inputs: {"d": Stage("data")}, outputs: ["out"]),
            "train": command(shell: "echo $N > out; cat p >> out", inputs: {"p": Stage("prepare")}, outputs: ["out"], env: {"N": "1"}),
        },
        variants: {"short": (), "long": (extends: "short", set: {"train": (env: {"N": "2"})})},
        profiles: {"tiny": (set: {"train/long": (env: {"N": "3"})})},
    )"#,
    );
    assert_eq!(
        project.run(&[]),
        ["data", "prepare/short", "train/long", "train/short"],
        "`prepare` runs once for both"
    );
    assert_eq!(project.run(&["--profile", "tiny"]), ["train/long"]);
    assert_eq!(project.run(&["--set", r#"train.env.N="4""#]).len(), 1, "one key, run once");
}

#[test]
fn single_stages_can_be_requested() {
    let project = Project::with(CHAIN);
    project.write("source.txt", "hello");
    assert_eq!(project.run(&["b"]), ["a", "b"]);
    assert_eq!(project.run(&["c", "--upstream"]), Vec::<String>::new());
    assert_eq!(project.run(&["a", "--downstream"]), ["c"]);
    assert_eq!(project.run(&["oth*"]), ["other"]);
    assert_eq!(project.run(&["--force", "b"]), ["b"]);
    let plan = project.json(&["run", "p.ron", "--force", "c", "--dry-run", "--json"]);
    let forced = plan.as_array().unwrap().iter().find(|step| step["stage"] == "c").unwrap();
    assert_eq!(forced["why"][0]["what"], "forced");
}

#[test]
fn outputs_can_be_exported_from_the_store() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "mkdir d; echo 1 > d/one; echo 2 > two", outputs: ["d", "two"])})"#,
    );
    project.run(&[]);
    project.ok(&["get", "a/d", "copy"]);
    project.ok(&["get", "a/two", "."]);
    assert_eq!((project.read("copy/one").as_str(), project.read("two").as_str()), ("1\n", "2\n"));
    project.write("two", "mine now");
    assert!(project.run(&[]).is_empty(), "a copy is no longer the store's");
}
