//! Tests the evaluation stages on a small synthetic set and an untrained encoder.

use caco_measure::{
    metric::{self, Metric},
    predictions::Predictions,
};
use caco_report::{comparison::Comparison, verdict::Verdict};
use caco_worker::{
    member::Member,
    task::{Stopped, Task},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::Ordering},
};

const MODEL: &str = r#"{"arch": "ResNet18", "width": 4, "stem": "Cifar", "hidden": 8, "dim": 4}"#;

/// The output folder of a stage.
struct Place(PathBuf);

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join("out").join(name)
    }

    fn metrics(&self) -> Vec<Metric> {
        metric::read(&self.file("metrics.jsonl")).unwrap()
    }

    fn predictions(&self) -> Predictions {
        Predictions::read(&self.file("predictions.safetensors")).unwrap()
    }
}

fn task(folder: &Path, kind: &str, parameters: Value, inputs: &[(&str, PathBuf)]) -> Task {
    let [out, work, byproducts] = ["out", "work", "byproducts"].map(|name| folder.join(name));
    [&out, &work, &byproducts].iter().for_each(|place| fs::create_dir_all(place).unwrap());
    let inputs: BTreeMap<String, PathBuf> =
        inputs.iter().map(|(slot, path)| (slot.to_string(), path.clone())).collect();
    Task {
        stage: kind.into(),
        kind: kind.into(),
        parameters,
        inputs,
        out,
        progress: work.join("progress.json"),
        work,
        byproducts,
        threads: 2,
        device: "cpu".into(),
        step_digests: false,
        member: Member { number: 0, of: 1, folder: folder.into(), arguments: vec![] },
        stop: Arc::default(),
        pulse: Arc::default(),
    }
}

fn run(name: &str, kind: &str, parameters: Value, inputs: &[(&str, PathBuf)]) -> Place {
    let folder = root().join(name);
    caco_worker::stages::execute(&task(&folder, kind, parameters, inputs)).unwrap_or_else(|e| panic!("{name}: {e:#}"));
    Place(folder)
}

fn root() -> &'static Path {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    ROOT.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// The inputs shared by all evaluations, created once.
struct Ground {
    images: [PathBuf; 2],
    indices: [PathBuf; 2],
    encoder: PathBuf,
    features: [PathBuf; 2],
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let drawn = run("drawn", "synthesize", json!({"classes": 6, "train": 90, "test": 60, "size": 16}), &[]);
        let images = [drawn.file("train"), drawn.file("test")];
        let index = |i: usize| {
            let parameters = json!({"root": {"Path": "unused"}});
            run(&format!("index{i}"), "index", parameters, &[("root", images[i].clone())]).file("index.jsonl")
        };
        let indices = [index(0), index(1)];
        let model: Value = serde_json::from_str(MODEL).unwrap();
        let encoder = run("encoder", "init_encoder", json!({ "model": model }), &[]).file("encoder.safetensors");
        let features = |i: usize| {
            let parameters = json!({"encoder": "e", "index": "i", "resize": 16, "crop": 16, "batch": 32});
            let inputs =
                [("encoder", encoder.clone()), ("index", indices[i].clone()), ("index.images", images[i].clone())];
            run(&format!("features{i}"), "features", parameters, &inputs).file("features.safetensors")
        };
        let features = [features(0), features(1)];
        Ground { images, indices, encoder, features }
    })
}

fn on_features(name: &str, kind: &str, mut parameters: Value) -> Place {
    for slot in ["train", "test"] {
        parameters[slot] = slot.into();
    }
    let [train, test] = ground().features.clone();
    run(name, kind, parameters, &[("train", train), ("test", test)])
}

fn linear(seed: u64) -> (Value, Vec<(&'static str, PathBuf)>) {
    let Ground { images: [train_images, test_images], indices: [train, test], encoder, .. } = ground();
    let parameters = json!({
        "encoder": "e", "train": "train", "test": "test", "size": 16, "resize": 16, "epochs": 3, "batch": 32,
        "rate": 10.0, "seed": seed,
    });
    let inputs = [
        ("encoder", encoder),
        ("train", train),
        ("train.images", train_images),
        ("test", test),
        ("test.images", test_images),
    ];
    (parameters, inputs.map(|(slot, path)| (slot, path.clone())).into())
}

fn linear_eval(seed: u64) -> Place {
    let (parameters, inputs) = linear(seed);
    run(&format!("linear{seed}"), "linear_eval", parameters, &inputs)
}

/// Features in which every image shows its class, and every second image also the next class.
fn several(i: usize) -> PathBuf {
    let Ground { images, indices, encoder, .. } = ground();
    let folder = root().join(format!("several{i}"));
    fs::create_dir_all(&folder).unwrap();
    let text = fs::read_to_string(&indices[i]).unwrap();
    let mut lines = text.lines();
    let mut changed = lines.next().unwrap().to_string();
    for (number, line) in lines.enumerate() {
        let mut image: Value = serde_json::from_str(line).unwrap();
        let label = image["label"].as_u64().unwrap();
        let shows = if number % 2 == 0 { vec![label] } else { vec![label, (label + 1) % 6] };
        image["shows"] = json!(shows);
        changed += &format!("\n{image}");
    }
    let index = folder.join("index.jsonl");
    fs::write(&index, changed).unwrap();
    let parameters = json!({"encoder": "e", "index": "i", "resize": 16, "crop": 16, "batch": 32});
    let inputs = [("encoder", encoder.clone()), ("index", index), ("index.images", images[i].clone())];
    run(&format!("several-features{i}"), "features", parameters, &inputs).file("features.safetensors")
}

fn on_several(name: &str, mut parameters: Value) -> Place {
    static FEATURES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let [train, test] = FEATURES.get_or_init(|| [several(0), several(1)]).clone();
    for (slot, value) in [("train", json!("train")), ("test", json!("test")), ("metric", json!("Map11"))] {
        parameters[slot] = value;
    }
    run(name, "transfer_eval", parameters, &[("train", train), ("test", test)])
}

#[test]
fn every_metric_can_be_recomputed_from_its_predictions() {
    let evaluations = [
        on_several("several", json!({"strengths": 3, "range": [0.01, 1.0]})),
        on_several("several-svm", json!({"strengths": 3, "range": [0.01, 1.0], "classifier": "Svm"})),
        on_features("knn", "knn", json!({"k": 5})),
        on_features("transfer", "transfer_eval", json!({"strengths": 4, "range": [0.01, 100.0]})),
        on_features("per-class", "transfer_eval", json!({"strengths": 2, "metric": "MeanPerClass"})),
        linear_eval(0),
    ];
    let mut seen = vec![];
    for place in &evaluations {
        let predictions = place.predictions();
        assert_eq!(predictions.samples(), 60);
        let stored = place.metrics();
        for again in predictions.metrics() {
            assert!(stored.contains(&again), "{}: {again:?} is not among {stored:?}", predictions.evaluation);
            assert!(again.interval.is_some_and(|(low, high)| low <= again.value && again.value <= high));
            seen.push((predictions.evaluation.clone(), again.name));
        }
    }
    let expected = [
        ("transfer_eval", "map11"),
        ("transfer_eval", "map11"),
        ("knn", "top1"),
        ("transfer_eval", "top1"),
        ("transfer_eval", "mean_per_class"),
        ("linear_eval", "top1"),
        ("linear_eval", "top5"),
    ];
    assert_eq!(seen, expected.map(|(kind, name)| (kind.to_string(), name.to_string())));
}

#[test]
fn a_stopped_linear_evaluation_ends_in_the_same_bytes_and_leaves_the_encoder_alone() {
    let encoder = fs::read(&ground().encoder).unwrap();
    let whole = linear_eval(7);
    let (parameters, inputs) = linear(7);
    let folder = root().join("stopped");
    for attempt in 0.. {
        // Each attempt is stopped after its first step, until no steps are left.
        let task = task(&folder, "linear_eval", parameters.clone(), &inputs);
        task.stop.store(attempt < 4, Ordering::SeqCst);
        match caco_worker::stages::execute(&task) {
            Ok(()) => {
                assert_eq!(attempt, 4);
                break;
            }
            Err(error) => assert!(error.is::<Stopped>(), "{error:#}"),
        }
    }
    for name in ["classifier.safetensors", "predictions.safetensors", "metrics.jsonl"] {
        assert!(fs::read(whole.file(name)).unwrap() == fs::read(Place(folder.clone()).file(name)).unwrap(), "{name}");
    }
    assert!(encoder == fs::read(&ground().encoder).unwrap());
}

fn compare(name: &str, parameters: Value, rows: &[Vec<&Place>]) -> Comparison {
    let mut inputs = vec![];
    for (i, row) in rows.iter().enumerate() {
        for (j, place) in row.iter().enumerate() {
            inputs.push((format!("{i}.{j}"), place.file("metrics.jsonl")));
            inputs.push((format!("{i}.{j}.predictions"), place.file("predictions.safetensors")));
        }
    }
    let inputs: Vec<(&str, PathBuf)> = inputs.iter().map(|(slot, path)| (slot.as_str(), path.clone())).collect();
    let place = run(name, "compare", parameters, &inputs);
    for form in ["comparison.md", "comparison.csv", "comparison.tex"] {
        assert!(!fs::read_to_string(place.file(form)).unwrap().is_empty());
    }
    serde_json::from_slice(&fs::read(place.file("comparison.json")).unwrap()).unwrap()
}

#[test]
fn rankings_are_compared_too() {
    let parameters = json!({"strengths": 2, "range": [0.1, 1.0]});
    let (ours, base) = (on_several("ranked-ours", parameters), {
        on_several("ranked-base", json!({"strengths": 2, "range": [0.1, 1.0], "classifier": "Svm"}))
    });
    let parameters = json!({
        "baseline": "base",
        "rows": [{"name": "base", "results": ["a"]}, {"name": "ours", "results": ["b"]}],
    });
    let cell = compare("ranked", parameters, &[vec![&base], vec![&ours]]).lines[1].cells[0].clone();
    assert_eq!(cell.measured.as_ref().unwrap(), &ours.predictions().metrics()[0]);
    let (difference, (low, high)) = cell.difference.unwrap();
    let expected = ours.metrics()[0].value - base.metrics()[0].value;
    assert!((difference - expected).abs() < 1e-12 && low <= difference && difference <= high);
}

/// The program, which is built together with these tests.
fn caco() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("caco")
}

#[test]
fn images_of_any_folder_are_embedded() {
    let Ground { images: [images, _], encoder, features: [features, _], indices: [index, _] } = ground();
    let out = root().join("mine.npy");
    let embed = |out: &Path, images: &Path| {
        let mut command = std::process::Command::new(caco());
        command.arg("embed").arg(images).args(["--resize", "16", "--crop", "16", "--batch", "32", "--device", "cpu"]);
        command.arg("--encoder").arg(encoder).arg("--out").arg(out).output().unwrap()
    };
    let printed = embed(&out, images);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    // The same images in the same order as in the index.
    let found = tch::Tensor::read_npy(&out).unwrap();
    let expected = caco_learn::eval::features::Features::read(features).unwrap().features;
    assert_eq!(found.size(), expected.size());
    assert!((&found - &expected).abs().max().double_value(&[]) < 1e-5);
    let listed = fs::read_to_string(root().join("mine.txt")).unwrap();
    let paths: Vec<String> = fs::read_to_string(index)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), paths);
    assert!(!root().join("mine.npy.work").exists());
    let out = root().join("mine.safetensors");
    assert!(embed(&out, images).status.success());
    let file = caco_learn::tensors::Tensors::read(&out).unwrap();
    assert_eq!(file.tensors["features"], found);
    assert_eq!(serde_json::from_str::<Vec<String>>(&file.metadata["paths"]).unwrap(), paths);
    let printed = embed(&root().join("mine.csv"), images);
    assert!(String::from_utf8_lossy(&printed.stderr).contains("FILE.npy"));
}

#[test]
fn a_comparison_combines_seeds_and_judges_claims() {
    let knn = on_features("compared-knn", "knn", json!({"k": 5}));
    let seeds = [linear_eval(11), linear_eval(12), linear_eval(13)];
    let base = linear_eval(14);
    let claim =
        |of: &str, value: f64| json!({"of": of, "metric": "top1", "value": value, "source": "a paper", "margin": 2.0});
    let parameters = json!({
        "baseline": "base",
        "columns": ["linear", "kNN"],
        "rows": [
            {"name": "base", "results": ["d"]},
            {"name": "ours", "results": ["a", "k"], "claims": [claim("a", 0.5), claim("k", 100.0)]},
            {"name": "ours", "results": ["b", "k"]},
            {"name": "ours", "results": ["c", "k"]},
            {"name": "theirs", "not_run": "needs 8 GPUs", "claims": [claim("linear", 71.3)]},
        ],
    });
    let rows = [vec![&base], vec![&seeds[0], &knn], vec![&seeds[1], &knn], vec![&seeds[2], &knn], vec![]];
    let comparison = compare("comparison", parameters.clone(), &rows);
    let names: Vec<&str> = comparison.lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["base", "ours", "theirs"]);
    let ours = &comparison.lines[1].cells;
    let columns: Vec<_> = ours.iter().map(|cell| (cell.evaluation.as_str(), cell.metric.as_str())).collect();
    assert_eq!(columns, [("linear", "top1"), ("linear", "top5"), ("kNN", "top1")]);
    let figures: Vec<f64> = seeds.iter().map(|place| place.metrics()[0].value).collect();
    assert_eq!(ours[0].runs, figures);
    let mean = figures.iter().sum::<f64>() / 3.0;
    assert!((ours[0].measured.as_ref().unwrap().value - mean).abs() < 1e-12);
    let difference = ours[0].difference.unwrap().0;
    assert!((difference - (mean - base.metrics()[0].value)).abs() < 1e-12);
    assert_eq!(ours[0].claim.as_ref().unwrap().verdict, Verdict::Exceeded);
    assert_eq!(ours[2].claim.as_ref().unwrap().verdict, Verdict::FellShort);
    assert_eq!(ours[2].difference, None, "the baseline has no such column");
    let theirs = comparison.lines[2].cells[0].claim.as_ref().unwrap();
    assert_eq!((theirs.verdict, theirs.note.as_str()), (Verdict::NotRun, "needs 8 GPUs"));

    let mut drawn = parameters;
    drawn["stand_in"] = "drawn images".into();
    let comparison = compare("stand-in", drawn, &rows);
    let claim = comparison.lines[1].cells[0].claim.as_ref().unwrap();
    assert_eq!((claim.verdict, claim.note.as_str()), (Verdict::NotRun, "drawn images"));
}
