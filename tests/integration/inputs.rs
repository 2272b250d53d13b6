//! What a stage reads has the digests of its key, even if files change while it waits or runs; and what it wrote is not
//! written to afterwards.

use crate::{
    process::{alive, wait_for},
    project::Project,
};
use std::{
    fs,
    process::{Child, Stdio},
};

/// Waits, inside a stage, until a file exists that the test creates.
fn until(project: &Project, file: &str) -> String {
    format!("while [ ! -e '{}' ]; do sleep 0.02; done", project.path().join(file).display())
}

fn touch(project: &Project, file: &str) -> String {
    format!("touch '{}'", project.path().join(file).display())
}

fn start(project: &Project) -> Child {
    project.command(&["run", "p.ron"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a file; fails if the run ends first.
fn wait_for_file(project: &Project, file: &str, run: &mut Child) {
    let path = project.path().join(file);
    wait_for(file, || path.exists() || run.try_wait().unwrap().is_some());
    assert!(path.exists(), "the run ended before {file}");
}

/// Starts a run, makes a change while its first stage runs, and waits for its end.
fn changed_meanwhile(project: &Project, change: impl FnOnce()) -> (i32, String) {
    let mut run = start(project);
    wait_for_file(project, "first-started", &mut run);
    change();
    project.write("first-go", "");
    end(run)
}

/// Waits for a run's end. Returns its exit code and what it printed.
fn end(run: Child) -> (i32, String) {
    let output = run.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn get(project: &Project, output: &str) -> Result<String, String> {
    let got = project.caco(&["get", output, "got", "-p", "p.ron"]);
    if got.code == 0 { Ok(project.read("got")) } else { Err(got.err) }
}

/// Two stages; the second reads `input` and waits, as the first does, for a file that the test creates.
fn two_stages(project: &Project, input: &str, read: &str) {
    let pipeline = format!(
        r#"(stages: {{
            "first": command(shell: "{}; {}; echo x > o", outputs: ["o"], isolation: None),
            "second": command(shell: "{}; {}; {read} > o", outputs: ["o"], isolation: None,
                inputs: {{"first": Stage("first"), "{input}": Path("{input}")}}),
        }})"#,
        touch(project, "first-started"),
        until(project, "first-go"),
        touch(project, "second-started"),
        until(project, "second-go"),
    );
    project.write("p.ron", &pipeline);
}

#[test]
fn an_input_that_changes_before_its_stage_starts_is_asked_for_under_its_new_key() {
    let project = Project::new();
    two_stages(&project, "script", "cat script");
    project.write("script", "A");
    project.write("second-go", "");
    let (code, said) = changed_meanwhile(&project, || project.write("script", "B"));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("script changed before it started"), "{said}");
    assert_eq!(get(&project, "second/o").unwrap(), "B");
    project.write("script", "A");
    assert!(
        get(&project, "second/o").unwrap_err().contains("has no result"),
        "nothing is published under the key of A"
    );
    project.ok(&["run", "p.ron"]);
    assert_eq!(get(&project, "second/o").unwrap(), "A");
}

#[test]
fn every_stage_that_reads_a_changed_input_gets_its_new_key() {
    let project = Project::new();
    let pipeline = format!(
        r#"(stages: {{
            "first": command(shell: "{}; {}; echo x > o", outputs: ["o"], isolation: None),
            "a": command(shell: "cat script > o", outputs: ["o"], inputs: {{"first": Stage("first"), "script": Path("script")}}),
            "b": command(shell: "cat script script > o", outputs: ["o"], inputs: {{"first": Stage("first"), "script": Path("script")}}),
            "same": command(shell: "cat script > o", outputs: ["o"], inputs: {{"first": Stage("first"), "script": Path("script")}}),
        }})"#,
        touch(&project, "first-started"),
        until(&project, "first-go"),
    );
    project.write("p.ron", &pipeline);
    project.write("script", "A");
    let (code, said) = changed_meanwhile(&project, || project.write("script", "B"));
    assert_eq!(code, 0, "{said}");
    let outputs = || ["a/o", "b/o", "same/o"].map(|output| get(&project, output));
    assert_eq!(outputs().map(Result::unwrap), ["B", "BB", "B"]);
    project.ok(&["audit", "p.ron"]);
    project.write("script", "A");
    assert!(
        outputs().iter().all(|got| got.as_ref().is_err_and(|why| why.contains("has no result"))),
        "nothing is published under the keys of A"
    );
}

#[test]
fn an_input_that_goes_away_before_its_stage_starts_fails_that_stage_alone() {
    let project = Project::new();
    two_stages(&project, "script", "cat script");
    project.write("script", "A");
    project.write("second-go", "");
    let (code, said) = changed_meanwhile(&project, || fs::remove_file(project.path().join("script")).unwrap());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("script does not exist") && said.contains("1 stage run"), "{said}");
}

#[test]
fn an_input_that_changes_before_its_stage_starts_and_back_has_its_result() {
    let project = Project::new();
    two_stages(&project, "script", "cat script");
    project.write("script", "A");
    let mut run = start(&project);
    wait_for_file(&project, "first-started", &mut run);
    project.write("script", "B");
    project.write("first-go", "");
    wait_for_file(&project, "second-started", &mut run);
    project.write("script", "A");
    project.write("second-go", "");
    let (code, said) = end(run);
    assert_eq!(code, 0, "{said}");
    // The stage read a copy of B, so the result is B's.
    assert!(get(&project, "second/o").unwrap_err().contains("has no result"));
    project.write("script", "B");
    assert_eq!(get(&project, "second/o").unwrap(), "B");
    project.ok(&["audit", "p.ron"]);
}

#[test]
fn a_folder_that_is_written_to_while_a_stage_reads_it_is_noticed_even_if_it_is_changed_back() {
    let project = Project::new();
    two_stages(&project, "data", "cat data/f");
    project.write("data/f", "A");
    // Large enough not to be copied.
    project.write("data/large", &"x".repeat(17 << 20));
    project.write("first-go", "");
    let mut run = start(&project);
    wait_for_file(&project, "second-started", &mut run);
    project.write("data/f", "B");
    project.write("data/f", "A");
    project.write("second-go", "");
    let (code, said) = end(run);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("data was changed while the stage ran"), "{said}");
    assert!(get(&project, "second/o").is_err());
}

/// A stage that leaves a process behind with its output open, which writes to it once the test creates `go`.
fn late_writer(project: &Project, clean: &str) {
    let late = format!(
        "exec 3>>o; echo $$ > '{}'; {}; echo LATE >&3",
        project.path().join("pid").display(),
        until(project, "go")
    );
    project.write("late.sh", &late);
    let pipeline = format!(
        r#"(stages: {{
            "a": command(shell: "echo early > o; {clean} setsid sh late.sh & {}; true", outputs: ["o"], isolation: None,
                inputs: {{"late.sh": Path("late.sh")}}),
            "b": command(shell: "cat o > copy", inputs: {{"o": Stage("a")}}, outputs: ["copy"]),
        }})"#,
        format_args!("while [ ! -s '{}' ]; do sleep 0.02; done", project.path().join("pid").display()),
    );
    project.write("p.ron", &pipeline);
}

#[test]
fn a_process_that_a_stage_leaves_behind_writes_into_no_result() {
    // One that is found and killed, and one that cleared its environment and is not found.
    for clean in ["", "env -i PATH=/usr/bin:/bin"] {
        let project = Project::new();
        late_writer(&project, clean);
        project.ok(&["run", "p.ron", "a"]);
        if clean.is_empty() {
            wait_for("the process to be killed", || !alive(&project.path().join("pid")));
        }
        project.write("go", "");
        wait_for("the process to end", || !alive(&project.path().join("pid")));
        assert_eq!(get(&project, "a/o").unwrap(), "early\n");
        project.ok(&["cache", "verify"]);
        project.ok(&["run", "p.ron"]);
        assert_eq!(get(&project, "b/copy").unwrap(), "early\n");
    }
}

#[test]
fn names_that_end_in_a_carriage_return_stay_what_they_are() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "mkdir d; echo icon > \"$(printf 'd/Icon\\r')\"; echo plain > d/Icon; echo 1 > d/x", outputs: ["d"]),
            "use": command(shell: "cat d/* > o; cat \"$(printf 'd/Icon\\r')\" >> o", inputs: {"d": Stage("make")}, outputs: ["o"]),
        })"#,
    );
    project.ok(&["run", "p.ron"]);
    assert_eq!(get(&project, "use/o").unwrap(), "plain\nicon\n1\nicon\n");
    project.ok(&["cache", "verify"]);
    project.ok(&["audit", "p.ron"]);
}

#[test]
fn a_folder_that_a_stage_read_and_somebody_changed_is_found_and_assembled_again() {
    let project = Project::with(
        r#"(stages: {
            "make": command(shell: "mkdir d; echo 1 > d/x", outputs: ["d"]),
            "use": command(shell: "cat d/x > o", inputs: {"d": Stage("make")}, outputs: ["o"]),
        })"#,
    );
    project.ok(&["run", "p.ron"]);
    let tree = fs::read_dir(project.path().join("cache/trees")).unwrap().next().unwrap().unwrap().path();
    // A new file, so that the object that the old one is a link to stays whole.
    fs::remove_file(tree.join("x")).unwrap();
    fs::write(tree.join("x"), "2").unwrap();
    let verify = project.caco(&["cache", "verify"]);
    assert!(verify.code == 1 && verify.out.contains("trees/"), "{}{}", verify.out, verify.err);
    project.ok(&["cache", "verify"]);
    project.ok(&["run", "p.ron", "use", "--force", "use"]);
    assert_eq!(get(&project, "use/o").unwrap(), "1\n");
}

#[test]
fn a_folder_of_links_can_be_read() {
    let project = Project::with(
        r#"(stages: { "s": command(shell: "cat d/link d/folder/f d/folder/again > o", inputs: {"d": Path("d")}, outputs: ["o"]) })"#,
    );
    for (file, text) in [("real/f", "real\n"), ("other/f", "other\n"), ("third", "third\n"), ("d/x", "")] {
        project.write(file, text);
    }
    for (target, link) in [("../real/f", "d/link"), ("../other", "d/folder"), ("../third", "other/again")] {
        std::os::unix::fs::symlink(target, project.path().join(link)).unwrap();
    }
    project.ok(&["run", "p.ron"]);
    assert_eq!(get(&project, "s/o").unwrap(), "real\nother\nthird\n");
}
