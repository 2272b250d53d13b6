//! Keys, divergences, reruns and citations.

use crate::project::Project;
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const CLOCK: &str = r#"(stages: {
    "steady": command(shell: "echo same > o", outputs: ["o"]),
    "clock": command(shell: "cat s > o; date +%N >> o; echo $$ >> o", inputs: {"s": Stage("steady")}, outputs: ["o"]),
})"#;

fn folders(project: &Project, store: &str) -> Vec<String> {
    let results = project.path().join(store).join("results");
    let mut found = vec![];
    for shard in fs::read_dir(results).unwrap().flatten() {
        for key in fs::read_dir(shard.path()).unwrap().flatten() {
            let records = fs::read_dir(key.path()).unwrap().flatten().filter(|e| e.path().is_dir());
            found.extend(records.map(|e| e.file_name().to_string_lossy().into_owned()));
        }
    }
    found.sort();
    found
}

#[test]
fn two_stores_are_merged_without_loss_and_every_divergence_is_listed() {
    let project = Project::with(CLOCK);
    project.ok(&["run", "p.ron"]);
    project.ok(&["run", "p.ron", "--cache", "other"]);
    let (mut all, others) = (folders(&project, "cache"), folders(&project, "other"));
    all.extend(others);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 3, "steady is the same in both");
    let standing = project.json(&["show", "clock", "--json"])["result"]["record"].clone();
    project.ok(&["cache", "copy", "--from", "other", "--all"]);
    assert_eq!(folders(&project, "cache"), all);
    let found = project.json(&["divergences", "--json"]);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!((&found[0]["stage"], &found[0]["outputs"]), (&"clock".into(), &serde_json::json!(["o"])));
    let records = found[0]["records"].as_array().unwrap();
    assert!(records.len() == 2 && records.iter().all(|r| r["there"] == true && r["signer"] == "own"));
    let stands: Vec<&Value> = records.iter().filter(|r| r["stands"] == true).map(|r| &r["record"]).collect();
    assert_eq!(stands, [&standing], "the older one stands");
    assert!(found[0]["notes"][0]["cause"]["copied"].as_str().unwrap().ends_with("other"));
    let text = project.ok(&["divergences", "clock"]).out;
    assert!(text.contains("differs in o") && text.contains("stands") && text.contains("copied from"), "{text}");
    let audit = project.ok(&["audit", "p.ron"]).out;
    assert!(audit.contains("△ divergence"), "{audit}");
    // A third store gets both records, the same current one, and the note.
    project.ok(&["cache", "copy", "--to", "third", "--all"]);
    assert_eq!(folders(&project, "third"), all);
    let there = project.json(&["divergences", "--json", "--cache", "third"]);
    assert_eq!(there, found);
}

#[test]
fn a_forced_run_of_other_bytes_is_noted_and_outlives_its_records() {
    let project = Project::with(CLOCK);
    project.ok(&["run", "p.ron"]);
    assert!(project.ok(&["divergences"]).err.contains("no key was seen"));
    project.ok(&["run", "p.ron", "--force", "clock"]);
    let text = project.ok(&["divergences"]).out;
    assert!(text.contains("the stage ran again") && text.contains("kept"), "{text}");
    project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]);
    let text = project.ok(&["divergences"]).out;
    assert!(text.contains("gone") && !text.contains("stands  "), "{text}");
}

#[test]
fn a_damaged_record_that_comes_out_otherwise_is_noted_too() {
    let project = Project::with(CLOCK);
    project.ok(&["run", "p.ron"]);
    let shown = project.json(&["show", "clock", "--json"]);
    fs::remove_file(shown["result"]["outputs"][0]["object"].as_str().unwrap()).unwrap();
    project.ok(&["run", "p.ron"]);
    let found = project.json(&["divergences", "--json"]);
    assert_eq!(found[0]["records"].as_array().unwrap().len(), 2);
    assert_eq!(found[0]["notes"][0]["cause"], "rerun");
}

#[test]
fn a_rerun_gives_the_same_bytes_or_is_reported_and_kept() {
    let project = Project::with(CLOCK);
    project.ok(&["run", "p.ron"]);
    let same = project.ok(&["audit", "--rerun", "steady"]).out;
    assert!(same.contains("✓ steady: run again, identical bytes"), "{same}");
    let other = project.caco(&["audit", "--rerun", "clock", "--json"]);
    assert_eq!(other.code, 1);
    let rerun: Value = serde_json::from_str(&other.out).unwrap();
    assert_eq!((&rerun["passes"], &rerun["rerun"][0]["verdict"]), (&false.into(), &"differs".into()));
    let verdict = fs::read_to_string(project.path().join(rerun["rerun"][0]["attestation"].as_str().unwrap())).unwrap();
    assert!(verdict.contains("payloadType"));
    assert_eq!(project.json(&["divergences", "--json"])[0]["records"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_dir(project.path().join("cache/work")).unwrap().count(), 0, "nothing is left behind");
    // With damaged inputs nothing runs.
    let shown = project.json(&["show", "steady", "--json"]);
    fs::remove_file(shown["result"]["outputs"][0]["object"].as_str().unwrap()).unwrap();
    let refused = project.caco(&["audit", "--rerun", "clock"]);
    assert!(refused.code == 1 && !refused.out.contains(": run again,"), "{}", refused.out);
}

#[test]
fn a_new_key_is_reported_once_and_a_run_with_nothing_to_do_needs_none() {
    let project = Project::with(CLOCK);
    assert!(project.ok(&["run", "p.ron"]).err.contains("made a key that signs results"));
    assert!(!project.ok(&["run", "p.ron", "--force", "steady"]).err.contains("made a key"));
    fs::remove_dir_all(project.path().join(".keys")).unwrap();
    project.ok(&["run", "p.ron"]);
    assert!(!project.path().join(".keys").exists());
    assert!(project.ok(&["signer", "list"]).err.contains("no key in"));
    assert!(project.ok(&["signer", "new"]).out.contains("signs from now on"));
    assert!(project.caco(&["signer", "new"]).err.contains("--replace"));
    assert!(project.ok(&["signer", "list"]).out.contains("signs here"));
    assert!(project.caco(&["signer", "trust", "p.ron"]).err.contains("BEGIN PUBLIC KEY"));
    assert!(project.caco(&["signer", "trust", "0123456789"]).err.contains("is signed by a key whose id starts"));
}

#[test]
fn without_a_folder_for_keys_the_error_says_what_to_do() {
    let project = Project::with(CLOCK);
    let run = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = project.command(&["run", "p.ron"]);
        command.env_remove("CACO_KEYS").env_remove("XDG_CONFIG_HOME").env_remove("HOME");
        change(&mut command);
        crate::project::printed(command.output().unwrap())
    };
    let homeless = run(&|_| ());
    assert!(homeless.code == 1 && homeless.err.contains("set CACO_KEYS to a folder"), "{}", homeless.err);
    project.write("file", "");
    let closed = run(&|command| _ = command.env("HOME", project.path().join("file")));
    assert!(closed.code == 1 && closed.err.contains("cannot create a signing key in"), "{}", closed.err);
    assert!(closed.err.contains("set CACO_KEYS to a writable folder"), "{}", closed.err);
    let home = project.path().join("home");
    assert_eq!(run(&|command| _ = command.env("HOME", &home)).code, 0);
    let key = home.join(".config/caco/keys/signing.pem");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    project.edit("same", "other");
    let open = run(&|command| _ = command.env("HOME", &home));
    assert!(open.code == 1 && open.err.contains("mode 0644") && open.err.contains("chmod 600"), "{}", open.err);
}

#[test]
fn a_metric_is_cited_with_its_chain_and_checked_without_the_store() {
    let project = Project::with(
        r#"(stages: {
        "list": command(shell: "echo 7 > list", outputs: ["list"]),
        "eval": command(
            shell: "cat list > o; echo '{\"name\": \"top1\", \"split\": \"test\", \"value\": 0.42}' > metrics.jsonl",
            inputs: {"list": Stage("list")}, outputs: ["o"],
        ),
    })"#,
    );
    project.ok(&["run", "p.ron"]);
    let text = project.ok(&["cite", "eval/top1", "--out", "figure.intoto.jsonl"]).out;
    assert!(text.contains("eval/top1 on test") && text.contains("list") && text.contains("log "), "{text}");
    assert_eq!(project.json(&["cite", "42", "--json"])["cited"]["figure"], "eval/top1");
    let near = project.caco(&["cite", "eval/top2"]);
    assert!(near.code == 1 && near.err.contains("did you mean 'eval/top1'"), "{}", near.err);
    fs::remove_dir_all(project.path().join("cache")).unwrap();
    assert!(project.ok(&["audit", "figure.intoto.jsonl"]).out.contains("✓ 3 statements hold"));
    let text = project.read("figure.intoto.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let audit = |lines: &[&str], expected: &str| {
        project.write("other.intoto.jsonl", &(lines.join("\n") + "\n"));
        let found = project.caco(&["audit", "other.intoto.jsonl"]);
        assert!(found.code == 1 && (found.out + &found.err).contains(expected), "{expected}");
    };
    audit(&[lines[0], lines[1]], "no step here wrote its input list");
    audit(&[lines[0], lines[2]], "are not those that its step wrote");
    audit(&[lines[0]], "it has no steps");
    let spoilt = lines[1].replacen("\"sig\":\"", "\"sig\":\"A", 1);
    audit(&[lines[0], &spoilt, lines[2]], "it is not what the key 'own' signed");
    project.ok(&["signer", "new", "--replace"]);
    project.ok(&["audit", "figure.intoto.jsonl"]);
}

#[test]
fn a_run_is_packed_and_a_data_set_described() {
    let project = Project::with(CLOCK);
    project.ok(&["run", "p.ron"]);
    project.ok(&["export", "ro-crate", "packed", "--license", "https://example.org/licence"]);
    let metadata: Value = serde_json::from_str(&project.read("packed/ro-crate-metadata.json")).unwrap();
    let graph = metadata["@graph"].as_array().unwrap();
    let ids: Vec<&str> = graph.iter().map(|e| e["@id"].as_str().unwrap()).collect();
    let root = graph.iter().find(|e| e["@id"] == "./").unwrap();
    let parts = root["hasPart"].as_array().unwrap();
    for part in parts.iter().map(|part| part["@id"].as_str().unwrap()) {
        assert!(ids.contains(&part) && Path::new(&project.path().join("packed").join(part)).exists(), "{part}");
    }
    let actions = graph.iter().filter(|e| e["@type"] == "CreateAction").count();
    assert_eq!(actions, 3, "two stages and the run");
    assert!(project.caco(&["export", "ro-crate", "packed"]).err.contains("is not empty"));
    project.ok(&["export", "ro-crate", "described", "--largest", "0"]);
    assert!(!project.path().join("described/clock/o").exists());
    project.write("i.jsonl", "{\"format\":1,\"classes\":[\"a\"],\"images\":0}\n");
    assert_eq!(project.json(&["export", "croissant", "i.jsonl"])["conformsTo"], "http://mlcommons.org/croissant/1.1");
    assert!(project.caco(&["export", "croissant", "p.ron"]).err.contains("p.ron is no index"));
}
