//! `caco audit`: valid results, and thirty ways of tampering with them.

use crate::project::{Printed, Project};
use caco_engine::{
    digest::{Digest, sha256},
    store::Manifest,
};
use caco_measure::{
    metric,
    predictions::{Answers, Figure, Predictions},
};
use caco_provenance::{
    envelope::Envelope,
    keyring::{Keyring, Signer},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const PIPELINE: &str = r#"(stages: {
    "list": command(shell: "cat data/* > list", inputs: {"data": Path("data")}, outputs: ["list"]),
    "train": command(
        shell: "mkdir model; cp list model/weights; echo 3 epochs > model/notes; echo step 1 loss 0.5; mkdir ../byproducts; echo 12 > ../byproducts/rate",
        inputs: {"list": Stage("list")},
        outputs: ["model"],
    ),
    "eval": command(
        shell: "cat model/weights > /dev/null; cp given/predictions predictions; cp given/metrics.jsonl metrics.jsonl",
        inputs: {"model": Stage("train"), "given": Path("given")},
        outputs: ["predictions"],
    ),
    "report": command(shell: "cat p > report", inputs: {"p": Stage("eval/metrics")}, outputs: ["report"]),
})"#;

/// The predictions of an evaluation of four images.
fn predictions() -> Predictions {
    Predictions {
        evaluation: "knn".into(),
        split: "test".into(),
        images: None,
        classes: ["a", "b"].map(String::from).into(),
        figures: vec![Figure::Top1],
        answers: Answers::Classes { labels: vec![0, 1, 1, 0], likeliest: vec![0, 1, 0, 0] },
    }
}

/// The predictions as a safetensors file, written here: the program that writes them needs libtorch.
fn safetensors(labels: &[i64], answers: &[i64]) -> Vec<u8> {
    let bytes = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (n, m) = (8 * labels.len(), 8 * answers.len());
    let header = json!({
        "__metadata__": {"evaluation": "knn", "split": "test", "classes": r#"["a","b"]"#, "figures": r#"["top1"]"#},
        "answers": {"dtype": "I64", "shape": [answers.len(), 1], "data_offsets": [0, m]},
        "labels": {"dtype": "I64", "shape": [labels.len()], "data_offsets": [m, m + n]},
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [(header.len() as u64).to_le_bytes().to_vec(), header, bytes(answers), bytes(labels)].concat()
}

/// A project whose every stage has run.
fn project() -> Project {
    let project = Project::with(PIPELINE);
    project.write("data/x", "pixels\n");
    project.write("data/y", "more\n");
    project.write("given/metrics.jsonl", "");
    metric::write(&project.path().join("given/metrics.jsonl"), &predictions().metrics()).unwrap();
    fs::write(project.path().join("given/predictions"), safetensors(&[0, 1, 1, 0], &[0, 1, 0, 0])).unwrap();
    project.ok(&["run", "p.ron"]);
    project
}

/// A copy of it, to tamper with.
fn copy(of: &Project) -> Project {
    let project = Project::new();
    let from = format!("{}/.", of.path().display());
    assert!(Command::new("cp").args(["-a", &from]).arg(project.path()).status().unwrap().success());
    project
}

fn shown(project: &Project, stage: &str) -> Value {
    project.json(&["show", stage, "-p", "p.ron", "--json"])["result"].clone()
}

fn key(project: &Project, stage: &str) -> String {
    shown(project, stage)["key"].as_str().unwrap().into()
}

fn folder(project: &Project, stage: &str) -> PathBuf {
    shown(project, stage)["folder"].as_str().unwrap().into()
}

fn object(project: &Project, stage: &str, output: &str) -> PathBuf {
    let outputs = shown(project, stage)["outputs"].clone();
    let found = outputs.as_array().unwrap().iter().find(|o| o["name"] == output).unwrap();
    found["object"].as_str().unwrap().into()
}

/// The object of a file of a folder.
fn file_of(project: &Project, listing: &Path, name: &str) -> PathBuf {
    let text = fs::read_to_string(listing).unwrap();
    let line = text.lines().find(|line| line.ends_with(name)).unwrap();
    project.path().join("cache/objects").join(&line[..2]).join(&line[2..64])
}

fn write(path: &Path, bytes: &[u8]) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o644));
    fs::write(path, bytes).unwrap();
}

/// Flips one bit of the second-last byte, which is text in every file here.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len().saturating_sub(2);
    bytes[at] ^= 1;
    write(path, &bytes);
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} does not hold {from}: {text}", path.display());
    write(path, text.replacen(from, to, 1).as_bytes());
}

fn own(project: &Project) -> Signer {
    Keyring::at(project.path().join(".keys")).signer().unwrap().unwrap()
}

/// An untrusted key.
fn stranger(project: &Project) -> Signer {
    Keyring::at(project.path().join(".strangers-keys")).signer_or_new().unwrap().0
}

/// Replaces a file of the record of `train` by that of `list`.
fn swap(project: &Project, name: &str) {
    fs::copy(folder(project, "list").join(name), folder(project, "train").join(name)).unwrap();
}

/// Changes the statement about a result, and signs it.
fn resign(folder: &Path, signer: &Signer, change: impl FnOnce(&mut Value)) {
    let path = folder.join("attestation.json");
    let envelope = Envelope::parse(&fs::read(&path).unwrap()).unwrap();
    let mut statement: Value = serde_json::from_slice(&envelope.payload().unwrap()).unwrap();
    change(&mut statement);
    write(&path, Envelope::seal(statement.to_string().as_bytes(), signer).text().as_bytes());
}

/// Replaces the bytes of an output, and fixes everything that needs no key: object, manifest, record, `current`.
/// Returns the record's new folder.
fn forge(project: &Project, stage: &str, output: &str, bytes: &[u8]) -> PathBuf {
    let folder = folder(project, stage);
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let artifact = manifest.outputs.iter_mut().find(|o| &*o.name == output).unwrap();
    (artifact.blake3, artifact.sha256) = (Digest::of(bytes), sha256(bytes));
    (artifact.size, artifact.length) = (bytes.len() as u64, bytes.len() as u64);
    let hex = artifact.blake3.to_string();
    let object = project.path().join("cache/objects").join(&hex[..2]).join(&hex[2..]);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    write(&object, bytes);
    write(&folder.join("manifest.json"), (serde_json::to_string_pretty(&manifest).unwrap() + "\n").as_bytes());
    let moved = folder.with_file_name(&*manifest.record());
    fs::rename(&folder, &moved).unwrap();
    write(&folder.with_file_name("current"), manifest.record().as_bytes());
    moved
}

/// Signs a forged output as the owner of the key would.
fn sign_for(folder: &Path, output: &str, signer: &Signer) {
    let text = fs::read(folder.join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&text).unwrap();
    let artifact = manifest.outputs.iter().find(|o| &*o.name == output).unwrap().clone();
    resign(folder, signer, |statement| {
        let subjects = statement["subject"].as_array_mut().unwrap();
        let subject = subjects.iter_mut().find(|s| s["annotations"]["output"] == output).unwrap();
        subject["digest"] = json!({"blake3": artifact.blake3, "sha256": artifact.sha256});
        subject["annotations"]["size"] = artifact.size.into();
        let files = statement["predicate"]["runDetails"]["byproducts"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["name"] == "manifest.json").unwrap();
        file["digest"] = json!({"blake3": Digest::of(&text), "sha256": sha256(&text)});
    });
}

/// Every file below a folder, with its length.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push((path.clone(), path.metadata().unwrap().len()))
        }
    }
    found.sort();
    found
}

/// A case of tampering: its name, the change, and what the audit must report.
type Tampering = (&'static str, fn(&Project), &'static [&'static str]);

const TAMPERINGS: &[Tampering] = &[
    (
        "a byte in an output",
        |p| flip(&object(p, "list", "list")),
        &["✗ list", "outputs: list: the bytes of cache/objects/"],
    ),
    ("a byte in a prediction", |p| flip(&object(p, "eval", "predictions")), &["✗ eval", "predictions: the bytes of"]),
    ("a byte in a metric", |p| flip(&object(p, "eval", "metrics")), &["✗ eval", "metrics: the bytes of"]),
    (
        "a byte in a file of a folder",
        |p| flip(&file_of(p, &object(p, "train", "model"), "weights")),
        &["✗ train", "model/weights: the bytes of"],
    ),
    ("a folder's listing", |p| flip(&object(p, "train", "model")), &["✗ train", "outputs: model: the bytes of"]),
    ("an output cut short", |p| write(&object(p, "report", "report"), b"{"), &["✗ report", "the bytes of"]),
    ("a removed output", |p| fs::remove_file(object(p, "report", "report")).unwrap(), &["✗ report", "is missing"]),
    (
        "a removed file of a folder",
        |p| fs::remove_file(file_of(p, &object(p, "train", "model"), "notes")).unwrap(),
        &["✗ train", "model/notes: ", "is missing"],
    ),
    (
        "a file in a folder as the next stage reads it",
        |p| {
            let tree = fs::read_dir(p.path().join("cache/trees")).unwrap().next().unwrap().unwrap().path();
            fs::remove_file(tree.join("weights")).unwrap();
            write(&tree.join("weights"), b"other weights");
        },
        &["✗ train", "model/weights: the bytes of cache/trees/"],
    ),
    (
        "a byte in an input",
        |p| p.write("data/x", "pixelz\n"),
        &["✗ list", "list  command", "was requested with", "data"],
    ),
    ("a file more in an input", |p| p.write("data/z", ""), &["✗ list", "data"]),
    ("a removed input", |p| fs::remove_dir_all(p.path().join("data")).unwrap(), &["✗ list", "data does not exist"]),
    (
        "a byte in a log",
        |p| flip(&folder(p, "train").join("log")),
        &["✗ train", "log: cache/results/", "not those that were signed"],
    ),
    ("a removed log", |p| fs::remove_file(folder(p, "train").join("log")).unwrap(), &["✗ train", "/log is missing"]),
    (
        "a byte in a by-product",
        |p| flip(&folder(p, "train").join("byproducts/rate")),
        &["✗ train", "byproducts/rate: its bytes are not those that were signed"],
    ),
    (
        "a by-product more",
        |p| write(&folder(p, "train").join("byproducts/curve"), b"1"),
        &["✗ train", "byproducts/curve: it is not covered by the signature"],
    ),
    (
        "a byte in a preimage",
        |p| flip(&folder(p, "train").join("preimage.json")),
        &["✗ train", "preimage.json: its digest is"],
    ),
    (
        "a removed preimage",
        |p| fs::remove_file(folder(p, "train").join("preimage.json")).unwrap(),
        &["✗ train", "preimage.json is missing"],
    ),
    ("another stage's preimage", |p| swap(p, "preimage.json"), &["✗ train", "preimage.json: its digest is"]),
    ("a swapped manifest", |p| swap(p, "manifest.json"), &["✗ train", "manifest.json: it belongs to key"]),
    (
        "a removed manifest",
        |p| fs::remove_file(folder(p, "eval").join("manifest.json")).unwrap(),
        &["✗ eval", "manifest.json: it is missing"],
    ),
    (
        "a size in a manifest",
        |p| replace(&folder(p, "list").join("manifest.json"), "\"size\": ", "\"size\": 1"),
        &["✗ list", "output list has another SHA-256, size or type"],
    ),
    (
        "an output that nobody made, in a manifest",
        |p| replace(&folder(p, "eval").join("manifest.json"), "\"name\": \"predictions\"", "\"name\": \"predicted\""),
        &["✗ eval", "output predictions was signed, but is missing"],
    ),
    (
        "a metric, with object, manifest and record mended",
        |p| {
            let text = p.read("given/metrics.jsonl").replace("0.75", "0.95");
            forge(p, "eval", "metrics", text.as_bytes());
        },
        &["✗ eval", "output metrics is", "was signed"],
    ),
    (
        "a prediction, with object, manifest and record mended",
        |p| drop(forge(p, "eval", "predictions", &safetensors(&[0, 1, 1, 0], &[0, 1, 1, 0]))),
        &["✗ eval", "output predictions is", "was signed"],
    ),
    (
        "a metric, signed with the stolen key",
        |p| {
            let text = p.read("given/metrics.jsonl").replace("0.75", "0.95");
            let folder = forge(p, "eval", "metrics", text.as_bytes());
            sign_for(&folder, "metrics", &own(p));
        },
        &["✗ eval", "top1 on test is 0.95, but the predictions give 0.75"],
    ),
    (
        "what was read, signed with the stolen key",
        |p| {
            resign(&folder(p, "train"), &own(p), |statement| {
                let inputs = &mut statement["predicate"]["buildDefinition"]["resolvedDependencies"];
                inputs[0]["digest"]["blake3"] = Digest::of(b"other").to_string().into();
            });
        },
        &["✗ train", "input list: ", "was signed, but the preimage has"],
    ),
    (
        "when it was made",
        |p| replace(&folder(p, "eval").join("record.json"), "\"started\": \"2", "\"started\": \"1"),
        &["✗ eval", "record.json: its bytes"],
    ),
    (
        "a removed signature",
        |p| fs::remove_file(folder(p, "train").join("attestation.json")).unwrap(),
        &["✗ train", "unsigned (written by an older caco"],
    ),
    (
        "a record signed by a stranger",
        |p| {
            resign(&folder(p, "train"), &stranger(p), |s| {
                s["predicate"]["runDetails"]["builder"]["caco_publicKey"] =
                    caco_provenance::keyring::pem(&stranger(p).public()).into()
            })
        },
        &["✗ train", "signed by the key", "which is not trusted here", "caco signer trust"],
    ),
    (
        "a stranger's signature under another's name",
        |p| resign(&folder(p, "train"), &stranger(p), |_| ()),
        &["✗ train", "not signed by the key", "that it names"],
    ),
    (
        "a stranger's signature under a trusted name",
        |p| {
            let (path, id) = (folder(p, "train").join("attestation.json"), own(p).id().to_string());
            resign(&folder(p, "train"), &stranger(p), |_| ());
            replace(&path, stranger(p).id(), &id);
        },
        &["✗ train", "it is not what the key 'own' signed"],
    ),
    (
        "a key that is trusted no more",
        |p| {
            p.ok(&["signer", "new", "--replace"]);
            let retired = p.json(&["signer", "list", "--json"])[1]["name"].as_str().unwrap().to_string();
            p.ok(&["signer", "distrust", &retired]);
        },
        &["✗ list", "✗ report", "which is not trusted here"],
    ),
    (
        "a signed text",
        |p| {
            let path = folder(p, "train").join("attestation.json");
            let mut envelope: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let payload = envelope["payload"].as_str().unwrap();
            let other = format!("{}{}", if payload.starts_with('f') { 'g' } else { 'f' }, &payload[1..]);
            envelope["payload"] = other.into();
            write(&path, envelope.to_string().as_bytes());
        },
        &["✗ train", "attestation.json: it is not what the key 'own' signed"],
    ),
    (
        "no signature in the envelope",
        |p| {
            let path = folder(p, "train").join("attestation.json");
            let mut envelope: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            envelope["signatures"] = json!([]);
            write(&path, envelope.to_string().as_bytes());
        },
        &["✗ train", "the envelope has no signature"],
    ),
    (
        "another type of text",
        |p| replace(&folder(p, "train").join("attestation.json"), "vnd.in-toto+json", "json"),
        &["✗ train", "its payload is of type 'application/json'"],
    ),
    (
        "a downgraded version",
        |p| resign(&folder(p, "train"), &own(p), |s| s["predicateType"] = "https://slsa.dev/provenance/v0.2".into()),
        &["✗ train", "its predicate is of type 'https://slsa.dev/provenance/v0.2'"],
    ),
    (
        "another build type",
        |p| {
            resign(&folder(p, "train"), &own(p), |s| {
                s["predicate"]["buildDefinition"]["buildType"] = "https://example.org/make".into()
            })
        },
        &["✗ train", "build type 'https://example.org/make' is not"],
    ),
    ("another record's statement", |p| swap(p, "attestation.json"), &["✗", "attestation.json: it is about key"]),
    (
        "a record moved to another key",
        |p| {
            let (from, to) = (folder(p, "list"), folder(p, "train"));
            let place = to.with_file_name(from.file_name().unwrap());
            fs::remove_dir_all(&to).unwrap();
            assert!(Command::new("cp").arg("-a").args([&from, &place]).status().unwrap().success());
            write(&to.with_file_name("current"), from.file_name().unwrap().to_str().unwrap().as_bytes());
        },
        &["✗ train", "moved here from another key"],
    ),
    (
        "a removed ancestor",
        |p| fs::remove_dir_all(folder(p, "list").parent().unwrap()).unwrap(),
        &["✗ list", "there is no result, and none was collected"],
    ),
    (
        "a pointer to a record that is not there",
        |p| write(&folder(p, "list").with_file_name("current"), b"0123456789abcdef"),
        &["✗ list", "names the record 0123456789abcdef, which does not exist"],
    ),
    (
        "a changed pipeline",
        |p| p.edit("3 epochs", "30 epochs"),
        &["✗ train", "the requested result was never computed", "30 epochs"],
    ),
];

#[test]
fn every_tampering_is_found_and_its_place_is_named() {
    let sound = project();
    assert!(TAMPERINGS.len() >= 30);
    let audit = sound.caco(&["audit", "p.ron"]);
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
    let mut missed = vec![];
    for (what, tamper, expected) in TAMPERINGS {
        let project = copy(&sound);
        assert_eq!(project.caco(&["audit", "p.ron"]).code, 0, "the copy holds");
        tamper(&project);
        let before = files(&project.path().join("cache"));
        let Printed { out, err, code } = project.caco(&["audit", "p.ron"]);
        assert_eq!(files(&project.path().join("cache")), before, "{what}: an audit changes nothing");
        let silent: Vec<_> = expected.iter().filter(|text| !out.contains(**text)).collect();
        if code != 1 || !silent.is_empty() {
            missed.push(format!("{what}: exit code {code}, not said {silent:?}\n{out}{err}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn ticks_and_crosses_are_shown_as_a_tree() {
    let project = project();
    flip(&folder(&project, "train").join("log"));
    let audit = project.caco(&["audit", "p.ron"]).out;
    let (tree, rest) = audit.split_once(" read in ").unwrap();
    let text = format!("{tree} read in SECONDS{}", &rest[rest.find(" s: ").unwrap()..]);
    insta::assert_snapshot!(crate::project::without_keys(&text));
}

#[test]
fn a_tampering_is_found_from_the_key_alone_too() {
    let project = project();
    let key = key(&project, "report");
    let audit = project.ok(&["audit", &key]);
    assert!(audit.out.contains("✓ report") && audit.out.contains("given"), "{}", audit.out);
    flip(&object(&project, "list", "list"));
    project.write("data/x", "pixelz\n");
    let audit = project.caco(&["audit", &key[..12], "--json"]);
    assert_eq!(audit.code, 1);
    let report: Value = serde_json::from_str(&audit.out).unwrap();
    let nodes = report["report"]["nodes"].as_array().unwrap();
    let list = nodes.iter().find(|node| node["stage"] == "list").unwrap();
    let failed: Vec<_> = list["checks"].as_array().unwrap().iter().filter(|c| c["state"] == "fail").collect();
    let names: Vec<_> = failed.iter().map(|c| c["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["inputs", "outputs"]);
    assert!(failed[0]["message"].as_str().unwrap().contains("data now holds"));
    assert_eq!(report["passes"], false);
}

#[test]
fn a_removed_ancestor_is_missed_from_the_key_alone_even_where_others_hold_its_bytes() {
    let project = project();
    // `model/weights` aside, `report` holds the bytes of the metrics that it read.
    let (report, eval) = (key(&project, "report"), folder(&project, "eval"));
    fs::remove_dir_all(eval.parent().unwrap()).unwrap();
    let audit = project.caco(&["audit", &report]);
    assert!(audit.code == 1 && audit.out.contains("input p: metrics of"), "{}", audit.out);
    assert!(audit.out.contains("is missing"), "{}", audit.out);
}

#[test]
fn a_file_leads_to_the_result_that_holds_it() {
    let project = project();
    project.ok(&["get", "report", "mine.txt", "-p", "p.ron"]);
    assert!(project.ok(&["audit", "mine.txt"]).out.contains("✓ report"));
    let weights = file_of(&project, &object(&project, "train", "model"), "weights");
    fs::copy(weights, project.path().join("w")).unwrap();
    assert!(project.ok(&["audit", "w"]).out.contains("✓ train"));
    project.write("w", "nothing like it");
    let none = project.caco(&["audit", "w"]);
    assert!(
        none.code == 1 && none.err.contains("no result in") && none.err.contains("holds the bytes of w"),
        "{}",
        none.err
    );
    let nobody = project.caco(&["audit", "evil"]);
    assert!(nobody.err.contains("did you mean 'eval'"), "{}", nobody.err);
    assert!(project.caco(&["audit", "p.ron", "--cache", "nowhere"]).err.contains("nowhere is not a store"));
}

#[test]
fn what_a_collection_removed_is_not_a_failure() {
    let project = project();
    project.ok(&["cache", "pin", "report", "--because", "the figure"]);
    project.ok(&["cache", "gc", "--older-than", "0s", "--yes"]);
    let audit = project.ok(&["audit", "p.ron"]);
    assert!(audit.out.contains("○ list") && audit.out.contains("✓ report"), "{}", audit.out);
    assert!(audit.out.contains("the bytes of 3 were collected"), "{}", audit.out);
    // Their attestations still count.
    let spoilt = copy(&project);
    let shards = fs::read_dir(spoilt.path().join("cache/collected")).unwrap().flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
    files.for_each(|file| replace(&file.path(), "command", "commend"));
    let audit = spoilt.caco(&["audit", "p.ron"]);
    assert!(audit.code == 1 && audit.out.contains("preimage.json: its digest is"), "{}", audit.out);
    project.ok(&["run", "p.ron"]);
    let audit = project.ok(&["audit", "p.ron"]);
    assert!(audit.out.contains("all passed") && !audit.out.contains('○'), "{}", audit.out);
}

#[test]
fn a_record_of_an_older_caco_is_unsigned_and_signed_when_it_runs_again() {
    let project = project();
    fs::remove_file(folder(&project, "list").join("attestation.json")).unwrap();
    let audit = project.caco(&["audit", "list", "-p", "p.ron"]);
    assert!(audit.code == 1 && audit.out.contains("unsigned (written by an older caco"), "{}", audit.out);
    assert_eq!(project.run(&["--force", "list", "list"]), ["list"]);
    project.ok(&["audit", "p.ron"]);
    // The same for one that was tampered with. A valid one is kept.
    flip(&folder(&project, "train").join("log"));
    let before = fs::read(folder(&project, "list").join("attestation.json")).unwrap();
    project.run(&["--force", "list", "--force", "train", "train"]);
    assert_eq!(fs::read(folder(&project, "list").join("attestation.json")).unwrap(), before);
    project.ok(&["audit", "p.ron"]);
}

#[test]
fn results_of_another_machine_count_once_its_key_is_trusted() {
    let project = Project::with(PIPELINE.split(r#""train""#).next().map(|head| format!("{head}}})")).unwrap().as_str());
    project.write("data/x", "pixels\n");
    let theirs = project.path().join("their-keys");
    let mut there = project.command(&["run", "p.ron", "--cache", "there"]);
    assert!(there.env("CACO_KEYS", &theirs).output().unwrap().status.success());
    project.ok(&["cache", "copy", "--from", "there", "--all", "-p", "p.ron"]);
    let audit = project.caco(&["audit", "p.ron"]);
    assert_eq!(audit.code, 1, "{}", audit.out);
    let id = audit.out.split("caco signer trust ").nth(1).unwrap()[..16].to_string();
    assert!(project.ok(&["signer", "trust", &id, "--name", "lab"]).out.contains("as 'lab'"));
    assert!(project.ok(&["audit", "p.ron"]).out.contains("signed by lab"));
    project.ok(&["signer", "distrust", "lab"]);
    assert_eq!(project.caco(&["audit", "p.ron"]).code, 1);
    project.ok(&["signer", "trust", theirs.join("signing.pub.pem").to_str().unwrap()]);
    project.ok(&["audit", "p.ron"]);
}
