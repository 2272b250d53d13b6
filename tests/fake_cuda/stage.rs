//! Stages of a run.

use crate::machine::Machine;
use std::{fs, path::PathBuf, process::Stdio, thread::sleep, time::Duration};

/// All stages that compute on a device, on a small network.
pub const PIPELINE: &str = r#"(
    name: "p",
    common: (
        model: (arch: ResNet18, width: 8, stem: Cifar, hidden: 32, dim: 16),
        views: SingleCrop(size: 32), batch: 8, bank_size: 32, seed: 0,
    ),
    stages: {
        "shapes": synthesize(domain: Shapes, classes: 4, train: 64, test: 16, size: 40),
        "train": index(root: Stage("shapes/train")),
        "test": index(root: Stage("shapes/test")),
        "bank": init_bank(index: "train"),
        "pretrain": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 3, warmup: 1),
        "watched": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 2, warmup: 1, monitor: (index: "test", every: 1), collapse: Continue),
        "features/train": features(encoder: "pretrain", index: "train", resize: 32, crop: 32),
        "features/test": features(encoder: "pretrain", index: "test", resize: 32, crop: 32),
        "knn": knn(train: "features/train", test: "features/test", share: 1.0),
        "linear": linear_eval(encoder: "pretrain", train: "train", test: "test", epochs: 2, size: 32, resize: 36),
    },
)"#;

/// A machine whose GPUs give back ones: a loss of 0 or NaN would end a training.
pub fn machine(gpus: &str) -> Option<Machine> {
    let machine = Machine::new()?.with("FAKE_CUDA_READ", "1").with("FAKE_CUDA_DEVICES", gpus);
    machine.write("p.ron", PIPELINE);
    Some(machine)
}

pub fn run(machine: &Machine, arguments: &[&str]) {
    let done = machine.caco(&[&["run", "p.ron"], arguments].concat());
    assert!(done.success, "{}", done.stderr);
}

/// The text of a stage's log.
fn log(machine: &Machine, stage: &str) -> String {
    let done = machine.caco(&["log", stage, "--pipeline", "p.ron"]);
    assert!(done.success, "{}", done.stderr);
    done.stdout
}

#[test]
fn every_stage_that_computes_runs_on_the_gpu_and_its_record_says_so() {
    let Some(machine) = machine("1") else { return };
    let (whole, watched) = (["knn", "linear", "--device", "cuda", "--gpus", "0"], ["watched", "--device", "cuda"]);
    run(&machine, &whole);
    // The monitor reads positions, which must not be those of ones.
    let machine = machine.with("FAKE_CUDA_READ", "0");
    run(&machine, &watched);
    for stage in ["bank", "pretrain", "watched", "features/train", "linear"] {
        let made = machine.record(stage);
        assert_eq!(made["determinism_class"]["gpu"], "Fake H200", "{stage}: {made}");
        assert_eq!(
            (&made["device"]["asked"], &made["device"]["device"]),
            (&"cuda:0".into(), &"cuda:0".into()),
            "{made}"
        );
        let log = log(&machine, stage);
        assert_eq!(log.matches("device cuda:0: Fake H200, with ").count(), 1, "{log}");
        // Nothing is printed a step: pretrain takes 24.
        assert!(log.lines().count() < 8, "{stage}: {log}");
    }
    for stage in ["knn", "shapes"] {
        assert!(machine.record(stage)["determinism_class"]["gpu"].is_null(), "{stage}");
    }
}

#[test]
fn a_training_is_stopped_at_a_checkpoint_and_resumed() {
    let Some(machine) = machine("1").map(|machine| machine.with("CACO_CHECKPOINT_SECONDS", "0")) else { return };
    machine.write("p.ron", &PIPELINE.replace("epochs: 3", "epochs: 100000"));
    run(&machine, &["bank", "--device", "cuda"]);
    for resumed in [false, true] {
        let mut command = machine.start(&["run", "p.ron", "pretrain", "--device", "cuda"]);
        let mut running = command.stderr(Stdio::piped()).spawn().unwrap();
        // Checkpoints are named by their step: a new one means that this run trains.
        let before = checkpoints(&machine);
        wait_until(|| {
            assert!(running.try_wait().unwrap().is_none(), "it ended");
            checkpoints(&machine).iter().any(|checkpoint| !before.contains(checkpoint))
        });
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(running.id() as i32, libc::SIGINT) };
        assert_eq!(running.wait().unwrap().code(), Some(130));
        let log = fs::read_to_string(checkpoints(&machine)[0].with_file_name("log")).unwrap();
        assert_eq!(log.contains("resuming at epoch"), resumed, "{log}");
    }
}

fn checkpoints(machine: &Machine) -> Vec<PathBuf> {
    let work = fs::read_dir(machine.path("cache/work")).into_iter().flatten();
    let files = work.flatten().flat_map(|stage| fs::read_dir(stage.path()).into_iter().flatten().flatten());
    let is_checkpoint = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-");
    files.map(|file| file.path()).filter(is_checkpoint).collect()
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("it does not happen");
}

#[test]
fn two_stages_compute_at_once_on_a_gpu_each() {
    let Some(machine) = machine("2") else { return };
    let meeting = machine.path("meeting");
    fs::create_dir(&meeting).unwrap();
    run(&machine, &["bank", "--device", "cpu"]);
    // Each waits, when it first asks for its GPU, until the other has come so far.
    let mut both = PIPELINE.replace(
        r#""bank": init_bank(index: "train"),"#,
        r#""bank": init_bank(index: "train"), "second": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 2, warmup: 1),"#,
    );
    both = both.replace("epochs: 3", "epochs: 1");
    machine.write("p.ron", &both);
    let machine = machine.with("FAKE_CUDA_MEET", format!("{}:2", meeting.display()));
    run(&machine, &["pretrain", "second", "--gpus", "0,1", "--jobs", "2"]);
    let mut came: Vec<_> = fs::read_dir(&meeting).unwrap().map(|file| file.unwrap().file_name()).collect();
    came.sort();
    assert_eq!(came, ["0", "1"]);
}

#[test]
fn within_its_claim_a_stage_computes_on_the_first_gpu() {
    let Some(machine) = machine("4") else { return };
    run(&machine, &["bank", "--device", "cuda:1", "--gpus", "2,3"]);
    let made = machine.record("bank");
    assert_eq!(made["device"]["device"], "cuda:0", "{made}");
    let log = fs::read_to_string(machine.path("cuda.log")).unwrap();
    assert!(!log.is_empty() && log.lines().all(|line| line.contains(r#""visible":"3""#)), "{log}");
    let error = machine.caco(&["run", "p.ron", "pretrain", "--device", "cuda:2", "--gpus", "2,3"]).stderr;
    assert!(error.contains("--device cuda:2 does not exist"), "{error}");
}

#[test]
fn a_stage_that_takes_no_gpu_computes_on_the_cpu() {
    let Some(machine) = machine("1") else { return };
    machine.write(
        "p.ron",
        &PIPELINE.replace(r#"init_bank(index: "train")"#, r#"init_bank(index: "train", run: (gpus: 0))"#),
    );
    run(&machine, &["bank", "--gpus", "0"]);
    assert!(machine.record("bank")["determinism_class"]["gpu"].is_null());
    assert!(machine.counts().is_empty());
}

#[test]
fn a_stage_that_is_to_compute_on_the_cpu_claims_no_gpu() {
    let Some(machine) = machine("1") else { return };
    let wants_one = PIPELINE.replace(r#"init_bank(index: "train")"#, r#"init_bank(index: "train", run: (gpus: 1))"#);
    machine.write("p.ron", &wants_one);
    // Another run holds the only GPU: a stage that claims it would wait.
    let locks = machine.path("caco-gpus");
    fs::create_dir(&locks).unwrap();
    let held = fs::File::create(locks.join("0")).unwrap();
    held.lock().unwrap();
    run(&machine, &["bank", "--device", "cpu", "--gpus", "0", "--max-time", "1"]);
    let made = machine.record("bank");
    assert!(made["conditions"]["environment"].get("CUDA_VISIBLE_DEVICES").is_none(), "{made}");
}

#[test]
fn a_claim_counts_more_than_the_callers_list() {
    let Some(machine) = machine("4").map(|machine| machine.with("CUDA_VISIBLE_DEVICES", "2,3")) else { return };
    run(&machine, &["bank", "--device", "cuda", "--gpus", "3"]);
    let log = fs::read_to_string(machine.path("cuda.log")).unwrap();
    assert!(!log.is_empty() && log.lines().all(|line| line.contains(r#""visible":"3""#)), "{log}");
    assert_eq!(machine.record("bank")["conditions"]["environment"]["CUDA_VISIBLE_DEVICES"], "3");
}

#[test]
fn a_linear_evaluation_waits_for_the_gpu_once_an_epoch_and_not_once_a_step() {
    const STEPS: u64 = 64;
    let Some(machine) = machine("1") else { return };
    run(&machine, &["pretrain", "--device", "cuda"]);
    let waits = |epochs: u64| {
        let evaluation = format!("test: \"test\", batch: 1, epochs: {epochs},");
        machine.write("p.ron", &PIPELINE.replace(r#"test: "test", epochs: 2,"#, &evaluation));
        fs::remove_file(machine.path("cuda.log")).unwrap();
        run(&machine, &["linear", "--device", "cuda"]);
        machine.counts().last().unwrap().waits
    };
    let waited = waits(6) - waits(2);
    // Reading the loss and writing the state take several copies an epoch.
    assert!(waited < 4 * STEPS, "{waited} times in four epochs of {STEPS} steps");
}

#[test]
fn the_record_says_why_a_stage_computed_on_the_cpu() {
    let Some(machine) = machine("1").map(Machine::without_driver) else { return };
    run(&machine, &["bank"]);
    let device = machine.record("bank")["device"].clone();
    assert_eq!((&device["asked"], &device["device"]), (&"auto".into(), &"cpu".into()), "{device}");
    assert!(device["why"].as_str().unwrap().starts_with("there is no NVIDIA driver"), "{device}");
    assert!(log(&machine, "bank").contains("device cpu: there is no NVIDIA driver"));
}

/// The stages of [`PIPELINE`] in two processes where they can be.
fn in_two_processes() -> String {
    let run = |text: String, (line, to): (&str, &str)| {
        assert!(text.contains(line), "{line}");
        text.replace(line, to)
    };
    let edits = [
        (r#"init_bank(index: "train")"#, r#"init_bank(index: "train", shards: 2, run: (processes: 2))"#),
        ("epochs: 3, warmup: 1)", "epochs: 3, warmup: 1, shards: 4, run: (processes: 2))"),
        ("resize: 32, crop: 32)", "resize: 32, crop: 32, batch: 8, run: (processes: 2))"),
        ("size: 32, resize: 36)", "size: 32, resize: 36, batch: 16, run: (processes: 2))"),
    ];
    edits.into_iter().fold(PIPELINE.into(), run)
}

#[test]
fn several_processes_compute_on_a_gpu_each_and_exchange_by_nccl() {
    let Some(machine) = machine("2") else { return };
    machine.write("p.ron", &in_two_processes());
    run(&machine, &["knn", "linear", "--gpus", "0,1"]);
    for stage in ["bank", "pretrain", "features/train", "linear"] {
        let made = machine.record(stage);
        assert_eq!(made["determinism_class"]["gpu"], "Fake H200", "{stage}: {made}");
    }
    let ended = machine.counts();
    let exchanged: Vec<u64> = ended.iter().map(|counts| counts.messages).filter(|messages| *messages > 0).collect();
    assert!(exchanged.len() >= 8, "{exchanged:?}");
}

#[test]
fn more_processes_than_gpus_are_refused_before_anything_runs() {
    let Some(machine) = machine("2") else { return };
    machine.write("p.ron", &in_two_processes());
    let done = machine.caco(&["run", "p.ron", "--device", "cuda", "--gpus", "1"]);
    assert!(
        !done.success && done.stderr.contains("run.processes is 2, and this run may use 1 GPU\n"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("help: give --set bank.run.processes=1, which changes no byte"), "{}", done.stderr);
    assert!(!done.stderr.contains("started"), "{}", done.stderr);
    let done = machine.caco(&["check", "p.ron", "--set", "bank.run.gpus=1"]);
    assert!(!done.success && done.stderr.contains("run.gpus is 1, for 2 processes"), "{}", done.stderr);
}
