//! Damage to the store.

use crate::project::Project;
use caco_engine::store::Store;
use caco_measure::rng::Rng;
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

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
fn a_missing_or_truncated_object_is_computed_again() {
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
fn a_truncated_manifest_is_quarantined_and_the_stage_runs_again() {
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
fn caches_can_be_deleted_at_any_time() {
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

/// One bit, anywhere in the file.
fn flip(object: &Path, draw: &mut Rng) {
    let mut bytes = fs::read(object).unwrap();
    let at = draw.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << draw.below(8);
    fs::set_permissions(object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(object, bytes).unwrap();
}

fn objects(project: &Project) -> Vec<PathBuf> {
    let shards = fs::read_dir(project.path().join("cache/objects")).unwrap();
    let mut objects: Vec<PathBuf> =
        shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().map(|e| e.unwrap().path())).collect();
    objects.sort();
    objects
}

#[test]
fn every_one_of_a_hundred_flipped_bits_is_found_and_repaired() {
    // 40 files, and 40 folders of two files and a listing each.
    let stage = |i: usize| {
        format!(
            "\"{i}\": command(shell: \"{{ yes {i} || true; }} | head -c {} > f; mkdir d; echo {i} > d/one; seq {i} {} > d/two\", \
             outputs: [\"f\", \"d\"]),\n",
            1000 + 997 * i,
            i + 9
        )
    };
    let project = Project::with(&format!("(stages: {{{}}})", (0..40).map(stage).collect::<String>()));
    assert_eq!(project.run(&[]).len(), 40);
    let whole = objects(&project);
    assert_eq!(whole.len(), 160);
    let mut draw = Rng::new(7, "flip", 0, 0);
    let chosen: Vec<&PathBuf> =
        draw.permutation(whole.len()).into_iter().take(100).map(|i| &whole[i as usize]).collect();
    chosen.iter().for_each(|object| flip(object, &mut draw));
    let store = Store::open(&project.path().join("cache")).unwrap();
    let check = store.verify().unwrap();
    let mut found: Vec<&PathBuf> = check.findings.iter().map(|f| &f.path).collect();
    let mut wanted = chosen.clone();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    // The listing of a damaged file is quarantined too.
    assert!(fs::read_dir(project.path().join("cache/quarantine")).unwrap().count() >= 100);
    assert!(chosen.iter().all(|object| !object.exists()));
    // If the listing is damaged too, the file's finding names no result; the listing's finding does.
    let spoilt: HashSet<_> = check.findings.iter().flat_map(|f| &f.keys).collect();
    assert_eq!(project.run(&[]).len(), spoilt.len(), "what is spoilt runs again, and nothing else");
    assert_eq!(objects(&project), whole);
    assert_eq!(store.verify().unwrap().findings, []);
    assert!(project.run(&[]).is_empty());
}

#[test]
fn a_record_that_is_being_written_is_no_record() {
    let project = Project::with(r#"(stages: {"a": command(shell: "echo 1 > o", outputs: ["o"])})"#);
    project.run(&[]);
    let shown = project.json(&["show", "a", "--json"]);
    let record = project.path().join(shown["result"]["folder"].as_str().unwrap());
    // Complete except for the final rename, and as long as a record's name: the process id has three digits.
    let aside = record.with_file_name("partial-vm-306-1");
    fs::create_dir(&aside).unwrap();
    fs::copy(record.join("manifest.json"), aside.join("manifest.json")).unwrap();
    assert_eq!(project.json(&["cache", "ls", "--json"])[0]["records"], 1);
}

/// A project with a folder `data`, and a stage that runs `shell` and has the output `o`.
fn with_data(shell: &str) -> Project {
    let project = Project::with(&format!(
        r#"(stages: {{"a": command(shell: "{shell}", inputs: {{"data": Path("data")}}, outputs: ["o"], isolation: None)}})"#
    ));
    for (file, text) in [("data/cat/1", "one"), ("data/cat/2", "two"), ("data/dog/3", "three")] {
        project.write(file, text);
    }
    project
}

#[test]
fn targets_of_links_in_an_output_are_never_moved() {
    for shell in [
        "ln -s $(readlink -f data) o",
        "mkdir o; ln -s $(readlink -f data/cat) o/cat",
        "mkdir o; ln -s $(readlink -f data/cat/1) o/1",
        "mkdir -p o/x; ln -s ../../.. o/x/up",
    ] {
        let project = with_data(shell);
        // Large enough not to be copied into the stage's folder.
        project.write("data/cat/large", &"x".repeat(17 << 20));
        let run = project.caco(&["run", "p.ron"]);
        assert_eq!(run.code, 1, "{shell}: {}", run.err);
        assert!(run.err.contains("outside of what the stage wrote; let the stage copy it"), "{shell}: {}", run.err);
        let left = ["data/cat/1", "data/cat/2", "data/dog/3"].map(|file| project.read(file));
        assert_eq!(left, ["one", "two", "three"], "{shell}");
        assert!(project.path().join("p.ron").exists());
    }
}

#[test]
fn links_inside_an_output_are_followed_and_dangling_ones_named() {
    let project = with_data("mkdir -p o/real; cp data/cat/1 o/real/x; ln -s real o/folder; ln -s real/x o/file");
    project.run(&[]);
    project.ok(&["get", "a", "out"]);
    assert_eq!(["out/real/x", "out/folder/x", "out/file"].map(|file| project.read(file)), ["one"; 3]);
    let dangling = with_data("mkdir o; ln -s nowhere o/l").caco(&["run", "p.ron"]);
    assert!(dangling.err.contains("o/l is a link to nowhere, which does not exist"), "{}", dangling.err);
}

#[test]
fn a_file_with_another_hard_link_is_copied() {
    use std::os::unix::fs::MetadataExt;
    let project = Project::new();
    project.write("original", "mine");
    let original = project.path().join("original");
    project.write(
        "p.ron",
        &format!(
            r#"(stages: {{"a": command(shell: "ln '{}' o", outputs: ["o"], isolation: None)}})"#,
            original.display()
        ),
    );
    project.run(&[]);
    let meta = fs::metadata(&original).unwrap();
    let writable = meta.permissions().mode() & 0o222 != 0;
    assert_eq!((meta.nlink(), writable), (1, true), "the stage's folder is gone, and took nothing with it");
    fs::write(&original, "changed").unwrap();
    assert_eq!(fs::read_to_string(object_of(&project, "a")).unwrap(), "mine");
}

#[test]
fn an_output_is_that_of_what_is_asked_for_now() {
    let project =
        Project::with(r#"(stages: {"a": command(shell: "echo $1 > o", outputs: ["o"], parameters: {"n": 1})})"#);
    project.run(&[]);
    project.run(&["--set", "a.parameters.n=2"]);
    let get = |more: &[&str]| {
        let _ = fs::remove_file(project.path().join("out"));
        let printed = project.caco(&[&["get", "a", "out", "-p", "p.ron"], more].concat());
        if printed.code == 0 { project.read("out") } else { printed.err }
    };
    assert_eq!(get(&[]), "--n=1\n");
    assert_eq!(get(&["--set", "a.parameters.n=2"]), "--n=2\n");
    let never = get(&["--set", "a.parameters.n=3"]);
    assert!(never.contains("stage 'a' has no result for p.ron as it stands"), "{never}");
    // A copied store has no names.
    fs::remove_dir_all(project.path().join("cache/names")).unwrap();
    assert_eq!(get(&[]), "--n=1\n");
}

#[test]
fn without_its_inputs_a_stage_is_represented_by_its_last_result() {
    let project = with_data("cat data/*/* > o");
    project.run(&[]);
    fs::rename(project.path().join("data"), project.path().join("elsewhere")).unwrap();
    let got = project.ok(&["get", "a", "out"]);
    assert!(got.err.contains("inputs of 'a' are missing here (data: "), "{}", got.err);
    assert_eq!(project.read("out"), "onetwothree");
}

#[test]
fn one_output_may_be_a_link_to_another() {
    let project = Project::with(
        r#"(stages: {"a": command(shell: "echo 1 > step-100; ln -s step-100 latest", outputs: ["step-100", "latest"])})"#,
    );
    project.run(&[]);
    for output in ["step-100", "latest"] {
        project.ok(&["get", &format!("a/{output}"), output]);
        assert_eq!(project.read(output), "1\n");
    }
}

#[test]
fn a_stage_cannot_replace_its_folders_with_links() {
    for (shell, metrics) in [
        ("cd ..; rm -r out; ln -s $DIARY out", None),
        ("cd ..; ln -sf $DIARY/text log; cd out; echo 1 > o", None),
        ("echo 1 > o; echo '{\\\"a\\\": 1}' > m.json; ln -s $DIARY/text metrics.jsonl", Some("m.json")),
        ("echo 1 > o; ln -s $DIARY/m.json m.json", Some("m.json")),
    ] {
        let metrics = metrics.map_or(String::new(), |file| format!("metrics: \"{file}\", "));
        let project = Project::with(&format!(
            r#"(stages: {{"a": command(shell: "{shell}", outputs: ["o"], {metrics}pass_env: ["DIARY"], isolation: None)}})"#
        ));
        let diary = tempfile::tempdir().unwrap();
        let files = [("text", "dear diary"), ("o", "mine"), ("m.json", r#"{"a": 1}"#)];
        files.iter().for_each(|(name, text)| fs::write(diary.path().join(name), text).unwrap());
        let run = project.command(&["run", "p.ron"]).env("DIARY", diary.path()).output().unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && message.contains("link") | message.contains("leads to"), "{shell}: {message}");
        for (name, text) in files {
            assert_eq!(fs::read_to_string(diary.path().join(name)).unwrap(), text, "{shell}");
        }
    }
}

#[test]
fn a_result_is_available_although_its_inputs_were_collected() {
    let project = project();
    let key = project.json(&["show", "a", "--json"])["result"]["key"].as_str().unwrap().to_string();
    let kept = project.json(&["show", "b", "--json"])["result"]["key"].as_str().unwrap().to_string();
    project.ok(&["cache", "pin", &kept]);
    project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]);
    let left = project.json(&["cache", "ls", "--json"]).to_string();
    assert!(left.contains(&kept) && !left.contains(&key), "{left}");
    project.ok(&["get", "b", "out", "-p", "p.ron"]);
    assert_eq!(project.read("out"), "text\nmore\n");
}
