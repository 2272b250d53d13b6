//! Trainings by several processes.

use crate::{
    process::{signal, wait_for},
    project::{Project, caco_path},
    training::digests,
};
use caco_measure::rng::Rng;
use std::{
    fs,
    process::{Child, Stdio},
};

/// A training of every method, with a bank initialisation. Width 16 fills the vectors of our own batch norm, width 4 does not.
const FILE: &str = r#"(
    common: (seed: 3, model: (arch: ResNet18, width: 16, stem: Cifar, hidden: 16, dim: 8), views: SingleCrop(size: 16), batch: 8,
        shards: 4),
    stages: {
        "images": synthesize(classes: 2, train: 32, test: 8, size: 24),
        "train": index(root: Stage("images/train")),
        "test": index(root: Stage("images/test")),
        "bank": init_bank(index: "train", bank_size: 32, run: (cpus: 1)),
        "features": features(encoder: "pretrain/caco", index: "train", resize: 16, crop: 16, batch: 9, run: (cpus: 1)),
        "linear": linear_eval(encoder: "pretrain/caco", train: "train", test: "test", size: 16, resize: 18, batch: 7, epochs: 2,
            rate: 3.0, run: (cpus: 1)),
    },
    each_variant: {
        "pretrain": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 2, warmup: 1, run: (cpus: 1)),
    },
    variants: {
        "caco": (set: {"pretrain": (monitor: (index: "test", every: 1, k: 5))}),
        "crops": (set: {"pretrain": (views: MultiCrop(size: 16, small: 8, count: 2), shards: 8)}),
        "halves": (set: {"pretrain": (precision: Bf16, accumulate: 2)}),
        "queue": (set: {"pretrain": (method: (objective: Queue), accumulate: 2)}),
        "portable": (set: {"pretrain": (determinism: Portable)}),
        "narrow": (set: {"pretrain": (method: SimCLR(), model: (width: 4))}),
        "moco": (set: {"pretrain": (method: MoCoV2(queue_size: 20))}),
        "adco": (set: {"pretrain": (method: AdCo(init: "bank"))}),
        "simclr": (set: {"pretrain": (method: SimCLR())}),
        "byol": (set: {"pretrain": (method: BYOL(predictor: 16))}),
        "swav": (set: {"pretrain": (method: SwAV(prototypes: 6), views: MultiCrop(size: 16, small: 8, count: 2))}),
    },
)"#;

const VARIANTS: [&str; 11] =
    ["caco", "crops", "halves", "queue", "portable", "narrow", "moco", "adco", "simclr", "byol", "swav"];

/// The digests of the outputs of every stage that several processes can compute, by so many of them.
fn by(processes: u32, activations: &str) -> Vec<(String, Vec<String>)> {
    let project = Project::with(FILE);
    let set = ["bank", "pretrain", "features", "linear"].map(|stage| format!("{stage}.run.processes={processes}"));
    let kept = ["bank", "pretrain"].map(|stage| format!("{stage}.activations={activations}"));
    let args: Vec<&str> = set.iter().chain(&kept).flat_map(|value| ["--set", value.as_str()]).collect();
    project.ok(&[&["run", "p.ron"], args.as_slice()].concat());
    let stages = VARIANTS
        .iter()
        .map(|variant| format!("pretrain/{variant}"))
        .chain(["bank", "features", "linear"].map(String::from));
    stages.map(|stage| (stage.clone(), digests(&project, &stage))).collect()
}

#[test]
fn the_number_of_processes_changes_no_byte() {
    let one = by(1, "Keep");
    assert!(one.iter().all(|(_, outputs)| !outputs.is_empty()));
    for (processes, activations) in [(2, "Recompute"), (4, "Keep")] {
        for (one, several) in one.iter().zip(by(processes, activations)) {
            assert_eq!(*one, several, "{processes} processes, {activations}");
        }
    }
}

/// A training that takes long enough to be broken off.
const LONG: &str = r#"(
    stages: {
        "images": synthesize(classes: 2, train: 32, test: 8, size: 24),
        "train": index(root: Stage("images/train")),
        "pretrain": pretrain(seed: 3, index: "train", method: SimCLR(), epochs: 40, warmup: 1, batch: 8, shards: 4,
            model: (arch: ResNet18, width: 16, stem: Cifar, hidden: 16, dim: 8), views: SingleCrop(size: 16), run: (cpus: 1)),
    },
)"#;

fn start(project: &Project, processes: u32) -> Child {
    let set = format!("pretrain.run.processes={processes}");
    let mut command = project.command(&["run", "p.ron", "--set", &set]);
    command.env("CACO_CHECKPOINT_SECONDS", "0").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The names of the files of checkpoints.
fn checkpoints(project: &Project) -> Vec<String> {
    let pattern = project.path().join("cache/work/*/checkpoint-*.safetensors");
    let found = glob::glob(pattern.to_str().unwrap()).unwrap();
    found.map(|path| path.unwrap().file_name().unwrap().to_str().unwrap().into()).collect()
}

/// The processes of the project's training that are alive, by their number: the first has none.
fn alive(project: &Project) -> Vec<(u32, Option<u32>)> {
    let folder = fs::canonicalize(project.path()).unwrap();
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&str> =
            line.split(|byte| *byte == 0).map(|word| std::str::from_utf8(word).unwrap_or("")).collect();
        let is_ours = words[0].ends_with("caco-worker") && words.get(1)?.starts_with(folder.to_str()?);
        is_ours.then(|| (pid, words.get(3).and_then(|number| number.parse().ok())))
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(process).collect()
}

#[test]
fn a_training_resumes_with_another_number_of_processes_and_leaves_none_behind() {
    let (straight, broken) = (Project::with(LONG), Project::with(LONG));
    assert!(start(&straight, 1).wait_with_output().unwrap().status.success());
    let mut steps = vec![];
    for (processes, sent) in [(2, libc::SIGTERM), (4, libc::SIGKILL)] {
        let mut run = start(&broken, processes);
        wait_for("a checkpoint", || {
            let more = checkpoints(&broken).into_iter().any(|name| !steps.contains(&name));
            more || run.try_wait().unwrap().is_some()
        });
        assert_eq!(run.try_wait().unwrap(), None, "it is long enough to be broken off");
        signal(run.id(), sent);
        assert!(!run.wait().unwrap().success());
        wait_for("the end of all processes", || alive(&broken).is_empty());
        steps = checkpoints(&broken);
        assert!(!steps.is_empty());
    }
    let end = start(&broken, 1).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(end.status.success() && said.contains("resumes where it was stopped"), "{said}");
    assert_eq!(digests(&straight, "pretrain"), digests(&broken, "pretrain"));
}

#[test]
fn any_process_can_be_asked_to_stop() {
    let project = Project::with(LONG);
    let run = start(&project, 4);
    wait_for("a checkpoint", || !checkpoints(&project).is_empty());
    let third = alive(&project).into_iter().find(|(_, number)| *number == Some(2));
    signal(third.expect("it trains").0, libc::SIGTERM);
    let end = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(end.status.code() == Some(75) && said.contains("1 stopped"), "{said}");
    wait_for("the end of all processes", || alive(&project).is_empty());
}

#[test]
fn a_process_that_hangs_ends_all_of_them() {
    let project = Project::with(LONG);
    let mut command = project.command(&["run", "p.ron", "--set", "pretrain.run=(processes: 2, retries: 5)"]);
    command.env("CACO_CHECKPOINT_SECONDS", "0").env("CACO_STALL_SECONDS", "2").stderr(Stdio::piped());
    let run = command.stdout(Stdio::null()).spawn().unwrap();
    // Enough steps for the watchdog to estimate the time of one.
    let is_late = |name: &String| name.as_str() >= "checkpoint-000000000040.safetensors";
    wait_for("forty steps", || checkpoints(&project).iter().any(is_late));
    let second = alive(&project).into_iter().find(|(_, number)| *number == Some(1));
    signal(second.expect("it trains").0, libc::SIGSTOP);
    let end = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(end.status.success() && said.contains(" has not ended after "), "{said}");
    wait_for("the end of all processes", || alive(&project).is_empty());
}

#[test]
fn a_process_that_is_killed_is_named() {
    let project = Project::with(LONG);
    let run = start(&project, 4);
    let third = || alive(&project).into_iter().find(|(_, number)| *number == Some(2));
    wait_for("a checkpoint", || !checkpoints(&project).is_empty());
    signal(third().expect("it trains").0, libc::SIGKILL);
    let end = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(!end.status.success() && said.contains("error: process 2 of 4: killed (signal 9)"), "{said}");
    wait_for("the end of all processes", || alive(&project).is_empty());
}

#[test]
fn the_words_of_the_process_that_fails_reach_the_error() {
    let project = Project::with(LONG);
    project.ok(&["run", "p.ron", "train"]);
    project.ok(&["get", "train/index", "index"]);
    project.ok(&["get", "images/train", "pictures"]);
    let at = |name: &str| project.path().join(name);
    let mut images: Vec<_> = glob::glob(at("pictures/*/*").to_str().unwrap()).unwrap().map(Result::unwrap).collect();
    images.sort();
    // The last image of the first batch belongs to the last process. A run would notice that it has changed, so the worker
    // is started by hand.
    let last = &images[Rng::new(3, "order", 0, 0).permutation(images.len())[7] as usize];
    fs::write(last, "no picture").unwrap();
    let parameters = serde_json::json!({"index": "", "method": {"SimCLR": {}}, "views": {"SingleCrop": {"size": 16}},
        "model": {"arch": "ResNet18", "width": 16, "stem": "Cifar", "hidden": 16, "dim": 8}, "seed": 3, "epochs": 1,
        "warmup": 0, "batch": 8, "shards": 4});
    let job = serde_json::json!({"stage": "pretrain", "kind": "pretrain", "parameters": parameters,
        "inputs": {"index": at("index"), "index.images": at("pictures")}, "out": at("out"), "work": at(""),
        "byproducts": at(""), "threads": 1, "device": "cpu", "step_digests": false, "processes": 2});
    fs::create_dir(at("out")).unwrap();
    project.write("job.json", &job.to_string());
    let end = project.program(caco_path().with_file_name("caco-worker")).arg(at("job.json")).output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    let name = last.file_name().unwrap().to_str().unwrap();
    assert!(!end.status.success() && said.contains("error: process 1 of 2: ") && said.contains(name), "{name}: {said}");
    assert!(said.trim_end().lines().last().unwrap().starts_with("error: process 1 of 2: "), "{said}");
}

#[test]
fn numbers_that_do_not_divide_the_shards_are_refused_before_anything_runs() {
    let project = Project::with(LONG);
    for (set, help) in [
        ("pretrain.run.processes=3", "give a power of two, of at most 4"),
        ("pretrain.run.processes=8", "give a power of two, of at most 4"),
        ("pretrain.run.processes=0", "give a power of two, of at most 4"),
        ("train.run=(processes: 2)", "leave it out, or give a training `shards`"),
        ("pretrain.run=(gpus: 1, processes: 2)", "give as many GPUs as processes, or gpus: 0 to compute on the CPU"),
    ] {
        let run = project.caco(&["run", "p.ron", "--set", set]);
        let is_refused = run.err.contains("run.processes is ") || run.err.contains("run.gpus is 1, for 2 processes");
        assert!(run.code != 0 && is_refused && run.err.contains(help), "{}", run.err);
        assert!(!project.path().join("cache/work").exists(), "{set}");
    }
}

#[test]
fn the_number_of_processes_is_part_of_no_key() {
    let project = Project::with(LONG);
    let key = |set: &str| project.json(&["plan", "p.ron", "--json", "--set", set]).to_string();
    assert_eq!(key("pretrain.run.processes=1"), key("pretrain.run.processes=4"));
}
