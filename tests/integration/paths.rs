//! Paths of inputs and outputs, however they are written and wherever the caller stands.

use crate::project::{Printed, Project, printed, ran};
use caco_provenance::envelope::Envelope;
use serde_json::Value;
use std::fs;

/// A stage that copies a file of the project.
const COPY: &str =
    r#"(stages: {"copy": command(shell: "cat in > o", inputs: {"in": Path("data.txt")}, outputs: ["o"])})"#;

/// A project that keeps its pipeline in `pipelines/`, with a folder `sub/deep`.
fn with_subfolders() -> Project {
    let project = Project::new();
    project.write("pipelines/tiny.ron", COPY);
    project.write("data.txt", "data\n");
    fs::create_dir_all(project.path().join("sub/deep")).unwrap();
    project
}

/// Runs a command in a folder of the project.
fn caco_in(project: &Project, folder: &str, args: &[&str]) -> Printed {
    printed(project.command(args).current_dir(project.path().join(folder)).output().unwrap())
}

/// A command that must succeed there.
fn ok_in(project: &Project, folder: &str, args: &[&str]) -> Printed {
    let printed = caco_in(project, folder, args);
    assert_eq!(printed.code, 0, "{folder}: caco {args:?}\n{}{}", printed.out, printed.err);
    printed
}

fn json_in(project: &Project, folder: &str, args: &[&str]) -> Value {
    serde_json::from_str(&ok_in(project, folder, args).out).unwrap()
}

fn refused(pipeline: &str) -> String {
    let printed = Project::with(pipeline).caco(&["check", "p.ron"]);
    assert_eq!(printed.code, 1, "{pipeline}");
    printed.err
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
    let text = r#"(stages: {
    "g": command(shell: "mkdir -p model/sub; echo 1 > model/w; echo 2 > model/sub/x; echo '{\"a\": 1}' > m.json", outputs: ["MODEL"], metrics: "METRICS"),
    "b": command(shell: "cat m/w deep/f > o", inputs: {"INPUT": Stage("REFERENCE"), "DEEP": Path("f.txt")}, outputs: ["o"],
        parameters: {"k": 1}, parameters_as: Json("PARAMETERS")),
})"#;
    let written = |paths: [&str; 6]| {
        let names = ["MODEL", "METRICS", "INPUT", "REFERENCE", "DEEP", "PARAMETERS"];
        names.iter().zip(paths).fold(text.to_string(), |text, (name, path)| text.replace(name, path))
    };
    let project = Project::with(&written(["model", "m.json", "m", "g/model", "deep/f", "given/k.json"]));
    project.write("f.txt", "f\n");
    assert_eq!(project.run(&[]), ["b", "g"]);
    project.write("p.ron", &written(["model/", "./m.json", "./m/", "g/./model//", "deep//f", "given/./k.json"]));
    assert_eq!(project.run(&[]), [""; 0]);
    project.ok(&["get", "b/./o", "got"]);
    assert_eq!(project.read("got"), "1\nf\n");
}

#[test]
fn one_path_that_is_written_in_two_ways_is_named_twice() {
    for (fields, message) in [
        (r#"outputs: ["model//w", "model/w"]"#, "'model/w' is named twice"),
        (r#"outputs: ["model/", "model/w"]"#, "'model' contains 'model/w'"),
        (r#"inputs: {"d": Path("d"), "./d/": Path("g")}, outputs: ["o"]"#, "'d' is named twice"),
        (r#"inputs: {"d/": Path("d"), "d/f": Path("g")}, outputs: ["o"]"#, "'d/f' is inside the input 'd'"),
        (r#"inputs: {"d/": Path("d")}, outputs: ["./d"]"#, "'d' is also an input"),
        (r#"outputs: ["./metrics/"]"#, "'metrics' is reserved"),
        (r#"outputs: ["a/../b"]"#, "'a/../b' is not a relative path inside"),
        (r#"outputs: ["."]"#, "'.' is not a relative path inside"),
    ] {
        let error = refused(&format!(r#"(stages: {{"a": command(shell: "", {fields})}})"#));
        assert!(error.contains(message), "{fields}: {error}");
    }
}

#[test]
fn a_project_is_the_same_from_all_its_folders() {
    let project = with_subfolders();
    assert_eq!(ran(&json_in(&project, "sub/deep", &["run", "tiny", "--json"])), ["copy"]);
    assert!(project.path().join("cache/VERSION").exists() && !project.path().join("sub/deep/cache").exists());
    for (folder, pipeline) in [
        ("", "tiny"),
        ("", "pipelines/tiny.ron"),
        ("sub", "tiny"),
        ("sub", "../pipelines/tiny.ron"),
        ("sub/deep", "tiny"),
        ("pipelines", "tiny"),
        ("pipelines", "tiny.ron"),
    ] {
        assert_eq!(ran(&json_in(&project, folder, &["run", pipeline, "--json"])), [""; 0], "{pipeline} from {folder}");
        assert_eq!(
            json_in(&project, folder, &["plan", pipeline, "--json"])[0]["state"],
            "hit",
            "{pipeline} from {folder}"
        );
    }
    let history = json_in(&project, "sub", &["history", "--json"]);
    let file = project.path().canonicalize().unwrap().join("pipelines/tiny.ron");
    let files = history.as_array().unwrap().iter().map(|run| run["began"]["file"].as_str().unwrap());
    assert_eq!(files.collect::<Vec<_>>(), [file.to_str().unwrap(); 8]);
    ok_in(&project, "sub", &["log", "copy"]);
    ok_in(&project, "sub", &["audit", "tiny"]);
    ok_in(&project, "sub", &["cache", "gc", "--keep", "tiny", "--yes"]);
    ok_in(&project, "sub", &["get", "copy/o", "there.txt"]);
    assert_eq!(project.read("sub/there.txt"), "data\n");
    assert!(ok_in(&project, "sub", &["get", "copy/o", "../here.txt"]).err.contains("../here.txt"));
    assert_eq!(project.read("here.txt"), "data\n");
}

#[test]
fn a_result_does_not_depend_on_where_the_caller_stood() {
    let results = ["", "sub/deep"].map(|folder| {
        let project = with_subfolders();
        ok_in(&project, folder, &["run", "tiny"]);
        let made = project.json(&["show", "copy", "--json"])["result"].clone();
        let attestation = fs::read(format!("{}/attestation.json", made["folder"].as_str().unwrap())).unwrap();
        let statement = Envelope::parse(&attestation).unwrap().payload().unwrap();
        let statement: Value = serde_json::from_slice(&statement).unwrap();
        let dependencies =
            statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap().clone();
        let pipeline = dependencies.iter().find(|of| of["name"] == "pipeline").unwrap()["uri"].clone();
        (made["key"].clone(), made["outputs"][0]["blake3"].clone(), pipeline)
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].2, "file:pipelines/tiny.ron");
}

#[test]
fn a_pipeline_beside_its_data_needs_no_store_to_be_a_project() {
    let project = Project::with(COPY);
    project.write("data.txt", "data\n");
    fs::create_dir(project.path().join("sub")).unwrap();
    assert_eq!(ran(&json_in(&project, "sub", &["run", "../p.ron", "--json"])), ["copy"]);
    assert_eq!(project.run(&[]), [""; 0]);
}

#[test]
fn messages_name_paths_as_the_caller_would_type_them() {
    let project = with_subfolders();
    let unknown = caco_in(&project, "sub", &["plan", "other"]);
    assert!(unknown.err.contains("other does not exist") && unknown.err.contains("there are ../pipelines/tiny.ron"));
    let none = caco_in(&project, "sub", &["divergences"]);
    assert!(none.err.contains("../cache is not a store"), "{}", none.err);
    let wrong = caco_in(&project, "sub", &["get", "copy", "to", "-p", "tiny"]);
    assert!(wrong.err.contains("caco run ../pipelines/tiny.ron 'copy'"), "{}", wrong.err);
    ok_in(&project, "sub", &["run", "tiny"]);
    assert_eq!(json_in(&project, "sub", &["show", "copy", "--json"])["written_at"], "../pipelines/tiny.ron:1");
    assert_eq!(project.json(&["show", "copy", "--json"])["written_at"], "pipelines/tiny.ron:1");
    fs::remove_file(project.path().join("data.txt")).unwrap();
    let missing = caco_in(&project, "sub", &["run", "tiny"]);
    let root = project.path().canonicalize().unwrap();
    assert!(
        missing.err.contains(&format!("paths in ../pipelines/tiny.ron start at {}", root.display())),
        "{}",
        missing.err
    );
    assert!(!project.caco(&["run", "tiny"]).err.contains("start at"));
}

#[test]
fn a_store_and_places_to_write_are_named_from_the_current_folder() {
    let project = with_subfolders();
    assert_eq!(ran(&json_in(&project, "sub", &["run", "tiny", "--json", "--cache", "mine"])), ["copy"]);
    assert!(project.path().join("sub/mine/VERSION").exists() && !project.path().join("cache").exists());
    let mut command = project.command(&["run", "tiny", "--json"]);
    let again =
        printed(command.current_dir(project.path().join("sub/deep")).env("CACO_CACHE", "../mine").output().unwrap());
    assert_eq!(ran(&serde_json::from_str(&again.out).unwrap()), [""; 0]);
    ok_in(&project, "sub", &["cache", "copy", "--cache", "mine", "--to", "copied", "--all"]);
    assert!(project.path().join("sub/copied/VERSION").exists());
    // Elsewhere, the store knows which project its last pipeline belongs to.
    let elsewhere = tempfile::tempdir().unwrap();
    let store = project.path().join("sub/mine");
    let mut command = project.command(&["show", "copy", "--json", "--cache", store.to_str().unwrap()]);
    let shown = printed(command.current_dir(elsewhere.path()).output().unwrap());
    assert!(shown.out.contains("\"state\": \"hit\""), "{shown:?}");
}

#[test]
fn the_nearest_project_is_taken_and_another_can_be_named() {
    let project = with_subfolders();
    ok_in(&project, "", &["run", "tiny"]);
    project.write("sub/inner/p.ron", COPY);
    project.write("sub/inner/data.txt", "inner\n");
    assert_eq!(ran(&json_in(&project, "sub/inner", &["run", "p", "--json"])), ["copy"]);
    ok_in(&project, "sub/inner", &["get", "copy/o", "got"]);
    assert_eq!(project.read("sub/inner/got"), "inner\n");
    // What is named by its path is run in the project where the caller stands.
    assert_eq!(ran(&json_in(&project, "sub", &["run", "inner/p.ron", "--json"])), [""; 0]);
    for folder in ["sub/inner", "sub/deep"] {
        let plan = json_in(&project, folder, &["plan", "tiny", "--json", "--project", "../.."]);
        assert_eq!(plan[0]["state"], "hit", "{folder}");
    }
    let none = caco_in(&project, "sub", &["plan", "tiny", "--project", "none"]);
    assert!(none.code == 1 && none.err.contains("--project none is not a folder"), "{}", none.err);
}

#[test]
fn a_pipeline_outside_runs_in_the_project_where_the_caller_stands() {
    let (project, outside) = (with_subfolders(), Project::with(COPY));
    outside.write("data.txt", "outside\n");
    let pipeline = outside.path().join("p.ron");
    assert_eq!(ran(&json_in(&project, "sub", &["run", pipeline.to_str().unwrap(), "--json"])), ["copy"]);
    ok_in(&project, "sub/deep", &["get", "copy/o", "got"]);
    assert_eq!(project.read("sub/deep/got"), "data\n");
    assert!(!outside.path().join("cache").exists());
}

#[test]
fn a_folder_named_cache_of_another_program_is_no_store() {
    let project = Project::new();
    for file in ["cache/index", "sub/p.ron", "sub/data.txt"] {
        project.write(file, COPY);
    }
    fs::remove_file(project.path().join("sub/p.ron")).unwrap();
    project.write("sub/exp/p.ron", COPY);
    assert_eq!(ran(&json_in(&project, "sub", &["run", "exp/p.ron", "--json"])), ["copy"]);
    assert!(project.path().join("sub/cache/VERSION").exists());
}

#[test]
fn what_a_command_may_open_starts_at_the_project_too() {
    let project = with_subfolders();
    project.write("tables/t.txt", "table\n");
    let line = format!("cat {}/tables/t.txt > o", project.path().canonicalize().unwrap().display());
    let stage = |fields: &str| format!(r#"(stages: {{"a": command(shell: "{line}", outputs: ["o"], {fields})}})"#);
    project.write("pipelines/tiny.ron", &stage(r#"allow: ["tables"]"#));
    ok_in(&project, "sub", &["run", "tiny"]);
    // `allow` is no part of the key.
    project.write("pipelines/tiny.ron", &stage(r#"allow: ["sub"], env: {"AGAIN": "1"}"#));
    let refused = caco_in(&project, "sub", &["run", "tiny"]);
    if crate::isolation::landlock() {
        assert!(refused.code == 1 && refused.err.contains(r#"Path("tables/t.txt")"#), "{refused:?}");
    }
}

#[test]
fn every_command_finds_a_pipeline_by_its_name_and_says_how_to_run_it_again() {
    let project = Project::new();
    project.write("v1.2.ron", COPY);
    let failed = project.caco(&["run", "v1.2"]);
    assert!(failed.code == 1 && failed.err.contains("data.txt"), "{failed:?}");
    project.write("data.txt", "data\n");
    project.ok(&["run", "v1.2"]);
    project.ok(&["audit", "v1.2"]);
    // From elsewhere another project would be found.
    project.write("v1.2.ron", &COPY.replace("cat in", "false"));
    let elsewhere = Project::new();
    let root = project.path().to_str().unwrap();
    let failed = elsewhere.caco(&["run", "v1.2", "--project", root]);
    assert!(failed.err.contains(&format!("--project '{root}' 'copy'")), "{failed:?}");
}
