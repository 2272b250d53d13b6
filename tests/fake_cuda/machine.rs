//! A machine with fake GPUs.

use serde::Deserialize;
use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// Environment variable for the folder that `scripts/fake-cuda.sh` made.
const FOLDER: &str = "CACO_FAKE_CUDA";

/// A machine with one fake GPU of 139 GiB, and a project's folder.
pub struct Machine {
    fake: PathBuf,
    folder: TempDir,
    has_driver: bool,
    has_cuda: bool,
    variables: Vec<(String, OsString)>,
}

/// What a process had asked of CUDA at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counts {
    pub launches: u64,
    pub dnn: u64,
    pub gemms: u64,
    pub memsets: u64,
    pub to_device: u64,
    pub to_host: u64,
    pub inside: u64,
    pub waits: u64,
    pub aside: u64,
    pub early: u64,
    pub joins: u64,
    pub messages: u64,
    pub pageable: u64,
    pub peak: u64,
    pub pinned: u64,
    pub bytes_to_device: u64,
}

impl Counts {
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            launches: self.launches - before.launches,
            dnn: self.dnn - before.dnn,
            gemms: self.gemms - before.gemms,
            memsets: self.memsets - before.memsets,
            to_device: self.to_device - before.to_device,
            to_host: self.to_host - before.to_host,
            inside: self.inside - before.inside,
            waits: self.waits - before.waits,
            aside: self.aside - before.aside,
            early: self.early - before.early,
            joins: self.joins - before.joins,
            messages: self.messages - before.messages,
            pageable: self.pageable - before.pageable,
            peak: self.peak - before.peak,
            pinned: self.pinned - before.pinned,
            bytes_to_device: self.bytes_to_device - before.bytes_to_device,
        }
    }
}

/// What a program printed, and whether it succeeded.
#[derive(Debug)]
pub struct Done {
    pub success: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (success, code) = (output.status.success(), output.status.code());
        Done { success, code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Machine {
    /// None, and a word on stderr, if the fake has not been built and is not asked for by name.
    pub fn new() -> Option<Machine> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fake-cuda");
        let named = std::env::var_os(FOLDER).map(PathBuf::from);
        let is_named = named.is_some();
        let fake = named.unwrap_or(built);
        if !fake.join("driver/libcuda.so.1").exists() {
            assert!(!is_named, "{FOLDER} names {}, where no fake CUDA is", fake.display());
            eprintln!("skipped: there is no fake CUDA in {}; scripts/fake-cuda.sh builds it", fake.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        Some(Machine { fake, folder, has_driver: true, has_cuda: true, variables: vec![] })
    }

    /// Without NVIDIA's driver.
    pub fn without_driver(self) -> Self {
        Machine { has_driver: false, ..self }
    }

    /// Without the CUDA part of libtorch, as after `make libtorch`. The fake runtime stands in for NVIDIA's.
    pub fn without_cuda(self) -> Self {
        let runtime = self.fake.join("torch/lib/libcudart.so.13");
        Machine { has_cuda: false, ..self }.with("LD_PRELOAD", runtime)
    }

    /// With a variable of the environment.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The folder of the CUDA part of libtorch.
    pub fn cuda(&self) -> PathBuf {
        self.fake.join("torch/lib")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A program on this machine.
    pub fn program(&self, path: &str) -> Command {
        let mut command = Command::new(path);
        let parts = [(self.has_cuda, "torch/lib"), (self.has_driver, "driver")];
        let folders = parts.iter().filter(|(there, _)| *there).map(|(_, part)| self.fake.join(part));
        command
            .current_dir(self.folder.path())
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env_remove("CACO_LIBTORCH_CUDA")
            .env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap())
            .env("FAKE_CUDA_LOG", self.path("cuda.log"))
            .env("TMPDIR", self.folder.path())
            .env("CACO_KEYS", self.path("keys"))
            // A backtrace would hide what an error says; programs must not print one unasked.
            .env("RUST_BACKTRACE", "1")
            .envs(self.variables.iter().cloned());
        command
    }

    /// Runs `caco`.
    pub fn caco(&self, arguments: &[&str]) -> Done {
        self.start(arguments).output().unwrap().into()
    }

    /// `caco`, to be started.
    pub fn start(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_caco"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Has the worker do what a flag says, with a setup.
    pub fn worker(&self, flag: &str, setup: &str) -> Done {
        let worker = Path::new(env!("CARGO_BIN_EXE_caco")).with_file_name("caco-worker");
        let mut child = self
            .program(worker.to_str().unwrap())
            .arg(flag)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(setup.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// The counts at every moment when a process waited for the whole device, and at its end.
    pub fn counts(&self) -> Vec<Counts> {
        let log = fs::read_to_string(self.path("cuda.log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How the result of a stage was made.
    pub fn record(&self, stage: &str) -> serde_json::Value {
        let shown = self.caco(&["show", stage, "--pipeline", "p.ron", "--json"]);
        assert!(shown.success, "{}", shown.stderr);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        assert!(shown["result"]["made"].is_object(), "{shown}");
        shown["result"]["made"].clone()
    }
}

/// A step of a small network, as the worker is asked to measure it.
pub fn step(device: &str) -> serde_json::Value {
    serde_json::json!({
        "model": {"arch": "ResNet18", "width": 16, "stem": "Cifar", "hidden": 64, "dim": 32},
        "views": {"SingleCrop": {"size": 32}}, "batch": 8, "bank": 64, "precision": "Bf16", "activations": "Keep",
        "device": device, "threads": 1, "steps": 2,
    })
}
