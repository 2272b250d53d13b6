//! Training runs: stopped, killed, watched, measured; and every variant of the method.

use crate::{
    experiment::{SMALL, tiny},
    process::{signal, start_of, wait_for},
    project::{Project, ran},
};
use caco_measure::rng::Rng;
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

fn args<'a>(stages: &[&'a str], set: &[&'a str]) -> Vec<&'a str> {
    let mut args = [&["run", "p.ron"], stages].concat();
    SMALL.iter().chain(set).for_each(|s| args.extend(["--set", s]));
    args
}

pub fn digests(project: &Project, stage: &str) -> Vec<String> {
    let shown = project.json(&["show", stage, "--json"]);
    let outputs = shown["result"]["outputs"].as_array().unwrap();
    outputs.iter().map(|o| format!("{} {}", o["name"], o["blake3"])).collect()
}

fn curve(project: &Project, stage: &str) -> Vec<Value> {
    let _ = fs::remove_file(project.path().join("curve.jsonl"));
    project.ok(&["get", &format!("{stage}/curve"), "curve.jsonl"]);
    project.read("curve.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The curves of training runs in progress.
pub fn curves(project: &Project) -> Vec<PathBuf> {
    let work = fs::read_dir(project.path().join("cache/work")).into_iter().flatten().flatten();
    work.map(|entry| entry.path().join("curve.jsonl")).filter(|path| path.exists()).collect()
}

/// Waits until the training run of `project` has taken another step, or has ended.
fn under_way(project: &Project, run: &mut Child) {
    let length = || curves(project).iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum::<u64>();
    let before = length();
    wait_for("a step", || run.try_wait().unwrap().is_some() || length() > before);
}

/// Whether a training run in progress has written a checkpoint.
fn checkpointed(project: &Project) -> bool {
    let pattern = project.path().join("cache/work/*/**/checkpoint-*.safetensors");
    glob::glob(pattern.to_str().unwrap()).unwrap().next().is_some()
}

/// Stops a training run `kills` times at random moments, and compares its result with that of an undisturbed run.
fn broken_off(stage: &str, set: &[&str], kills: u64) {
    let (straight, broken) = (tiny(), tiny());
    let start = |project: &Project| {
        let mut command = project.command(&args(&[stage], set));
        command.env("CACO_CHECKPOINT_SECONDS", "0.1").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    assert!(start(&straight).wait_with_output().unwrap().status.success());
    let mut rng = Rng::new(kills, "kills", 0, 0);
    let mut signals = vec![];
    for kill in 0..kills {
        let mut run = start(&broken);
        // The last one may have been killed after everything but its final message.
        let Some(line) = start_of(stage, &mut run) else { break };
        assert!(line.contains(if kill == 0 { "started" } else { "resumes where it was stopped" }), "{line}");
        under_way(&broken, &mut run);
        // The first kill may come before the first checkpoint. On a busy machine all would, and nothing would be
        // resumed.
        wait_for("a checkpoint", || kill == 0 || checkpointed(&broken) || run.try_wait().unwrap().is_some());
        sleep(Duration::from_secs_f64(rng.range(0.0, 0.3)));
        // Two of three are killed, the third is asked to stop.
        let sent = if rng.chance(2.0 / 3.0) { libc::SIGKILL } else { libc::SIGTERM };
        signals.push(sent);
        signal(run.id(), sent);
        if run.wait().unwrap().success() {
            signals.pop();
            break;
        }
    }
    // On a fast machine it may end before the last kill.
    eprintln!("{stage} was broken off {} times: {signals:?}", signals.len());
    assert!(2 * signals.len() as u64 >= kills, "{stage} is too short to be broken off {kills} times: {signals:?}");
    let end = start(&broken).wait_with_output().unwrap();
    assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    assert_eq!(digests(&straight, stage), digests(&broken, stage), "{stage} broken off by {signals:?}");
}

/// How often a training run is stopped: a few times, or CACO_KILLS.
fn kills() -> u64 {
    std::env::var("CACO_KILLS").map_or(3, |n| n.parse().unwrap())
}

#[test]
fn a_training_killed_at_random_moments_ends_in_the_same_bytes() {
    let epochs = format!("pretrain.epochs={}", 8 * kills());
    broken_off("pretrain/short", &[&epochs, "pretrain.monitor=(index: \"test\", every: 5)"], kills());
}

#[test]
fn a_multi_crop_training_killed_at_random_moments_ends_in_the_same_bytes() {
    let epochs = format!("pretrain/multicrop.epochs={}", 3 * kills());
    broken_off("pretrain/multicrop", &[&epochs], kills());
}

#[test]
fn every_variant_of_the_method_trains_over_the_same_loop() {
    let project = tiny();
    let mut losses = vec![];
    for objective in ["CaCo", "FixedBank", "AdversarialOnly", "CooperativeOnly", "KeyPositive", "Queue"] {
        let set = format!("pretrain.method.objective={objective}");
        let outcome = project.json(&[args(&["pretrain/short"], &[&set, "pretrain.epochs=2"]), vec!["--json"]].concat());
        let ran = ran(&outcome);
        assert!(losses.is_empty() || ran == ["pretrain/short"], "they share the bank initialisation: {ran:?}");
        let rows = curve(&project, "pretrain/short");
        assert_eq!(rows.len(), 8);
        losses.push(rows[7]["loss"].as_f64().unwrap());
        // A bank that does not learn keeps its columns' norm; a queue's keys have norm 1.
        let norms: Vec<f64> = rows.iter().map(|row| row["bank_norm"].as_f64().unwrap()).collect();
        let moves = norms.windows(2).any(|pair| pair[0] != pair[1]);
        assert_eq!(moves, !["FixedBank", "Queue"].contains(&objective), "{objective}: {norms:?}");
    }
    losses.sort_by(f64::total_cmp);
    assert!(losses.windows(2).all(|pair| pair[0] < pair[1]), "two variants are one: {losses:?}");
}

#[test]
fn the_monitor_agrees_with_the_knn_stage() {
    let project = tiny();
    let set = [
        "pretrain.epochs=3",
        "pretrain.monitor=(index: \"test\", every: 2, share: 1.0)",
        "features/train/short.resize=24",
        "features/train/short.crop=24",
        "features/test/short.resize=24",
        "features/test/short.crop=24",
    ];
    let outcome = project.json(&[args(&["knn/short"], &set), vec!["--json"]].concat());
    assert!(ran(&outcome).contains(&"knn/short".into()));
    let looked: Vec<(u64, f64)> = curve(&project, "pretrain/short")
        .iter()
        .filter_map(|row| Some((row["epoch"].as_u64().unwrap(), row.get("knn")?.as_f64().unwrap())))
        .collect();
    assert_eq!(looked.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2], "every second epoch and the last");
    let metric = |stage: &str, name: &str| {
        let shown = project.json(&["show", stage, "--json"]);
        let metrics = shown["result"]["metrics"].as_array().unwrap().clone();
        metrics.iter().find(|m| m["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    assert_eq!(metric("pretrain/short", "knn"), looked[1].1);
    assert_eq!(metric("knn/short", "top1"), looked[1].1);
}

#[test]
fn a_training_is_watched_during_and_after_its_run() {
    let project = tiny();
    let fails = project.caco(&["watch", "-p", "p.ron"]);
    assert!(fails.code == 1 && fails.err.contains("no training is in progress"), "{}", fails.err);
    let set = ["pretrain/short.epochs=200"];
    let mut run = project.command(&args(&["pretrain/short"], &set)).stderr(Stdio::null()).spawn().unwrap();
    // First the bank initialisation, then the training itself.
    let mut shown = project.caco(&["watch"]);
    wait_for("the training to be shown", || {
        shown = project.caco(&["watch"]);
        shown.out.starts_with("pretrain/") && shown.out.contains("loss ")
    });
    signal(run.id(), libc::SIGTERM);
    run.wait().unwrap();
    for word in ["  epoch", "loss ", "bank_norm", "spread"] {
        assert!(shown.out.contains(word), "{}{}", shown.out, shown.err);
    }
    project.ok(&args(&["pretrain/short"], &[]));
    let newest = project.json(&["watch", "pretrain/short", "--json"]);
    assert!(newest["step"] == 4.0 && newest["loss"].as_f64().unwrap() > 0.0, "{newest}");
    assert!(newest["images_per_second"].as_f64().unwrap() > 0.0, "{newest}");
    assert!(project.ok(&["watch", "bank/short"]).out.contains("loss "));
    let fails = project.caco(&["watch", "train"]);
    assert!(fails.code == 1 && fails.err.contains("no curve"), "{}", fails.err);
}

#[test]
fn a_step_is_measured_part_by_part() {
    let project = Project::new();
    let sizes =
        ["--arch", "ResNet18", "--width", "4", "--size", "32", "--batch", "8", "--bank", "64", "--hidden", "16"];
    for precision in ["f32", "bf16"] {
        let rest = ["--dim", "8", "--precision", precision, "--steps", "1", "--threads", "1", "--json"];
        let report = project.json(&[&["bench", "step"], sizes.as_slice(), &rest].concat());
        assert!(report["images_per_second"].as_f64().unwrap() > 0.0, "{report}");
        for part in ["load", "copy", "forward", "keys", "backward", "bank", "optimizer"] {
            assert!(report["milliseconds"][part].as_f64().unwrap() > 0.0, "{part}: {report}");
        }
    }
    let sizes =
        ["--arch", "resnet18", "--width", "16", "--size", "32", "--batch", "64", "--bank", "64", "--hidden", "16"];
    let peak = |activations| {
        let rest = ["--activations", activations, "--dim", "8", "--steps", "1", "--threads", "1", "--json"];
        project.json(&[&["bench", "step"], sizes.as_slice(), &rest].concat())["peak_memory"].as_u64().unwrap()
    };
    let (kept, again) = (peak("keep"), peak("recompute"));
    assert!(again < kept - (50 << 20), "{again} bytes where {kept} are needed to keep everything");
    let wrong = project.caco(&["bench", "step", "--batch", "1"]);
    assert!(wrong.code == 1 && wrong.err.contains("--batch is 1\nhelp: give at least 2"), "{}", wrong.err);
}
