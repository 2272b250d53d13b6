//! `caco doctor`

use super::{Project, print, print_json};
use crate::display::bytes;
use anyhow::Result;
use caco_engine::{disk::Space, environment};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

#[derive(Args)]
#[command(after_help = "Examples:\n  caco doctor")]
pub struct DoctorArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, schemars::JsonSchema)]
pub struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

pub fn main(args: &DoctorArgs, project: &Project) -> Result<ExitCode> {
    let mut findings = vec![
        version("rust toolchain", "cargo", &["--version"], "install it from https://rustup.rs"),
        version("C++ compiler", "c++", &["--version"], "Debian: apt-get install g++; macOS: xcode-select --install"),
        version("make", "make", &["--version"], "Debian: apt-get install make"),
        version(
            "python3 with pip",
            "python3",
            &["-m", "pip", "--version"],
            "Debian: apt-get install python3-pip; it fetches libtorch",
        ),
        worker(),
        kernels(),
    ];
    findings.extend(gpus());
    findings.push(disk(&project.shown(project.cache())));
    if args.json {
        print_json(&findings)?;
    } else {
        for f in &findings {
            let mark = if f.ok { "ok  " } else { "no  " };
            print(&format!("{mark}{:18} {}\n", f.what, f.found))?;
            if let Some(help) = f.help.as_ref().filter(|_| !f.ok) {
                print(&format!("    {:18} {help}\n", ""))?;
            }
        }
    }
    let bad = findings.iter().any(|f| !f.ok && f.help.is_some());
    Ok(if bad { ExitCode::from(super::FAILED) } else { ExitCode::SUCCESS })
}

fn version(what: &'static str, program: &str, args: &[&str], help: &'static str) -> Finding {
    let output = Command::new(program).args(args).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Finding { what, ok: true, found: text.lines().next().unwrap_or_default().into(), help: None }
        }
        _ => Finding {
            what,
            ok: false,
            found: format!("`{program}` is not there or does not work"),
            help: Some(help.into()),
        },
    }
}

/// Asks the worker, since this program never loads libtorch.
fn worker() -> Finding {
    let what = "libtorch";
    let help = Some("build it with `make build`".to_string());
    let Ok(path) = std::env::current_exe().map(|p| p.with_file_name("caco-worker")) else {
        return Finding { what, ok: false, found: "this program's own path is unknown".into(), help };
    };
    match Command::new(&path).arg("--doctor").output() {
        Ok(output) if output.status.success() => {
            Finding { what, ok: true, found: String::from_utf8_lossy(&output.stdout).trim().into(), help: None }
        }
        Ok(output) => Finding { what, ok: false, found: String::from_utf8_lossy(&output.stderr).trim().into(), help },
        Err(e) => Finding { what, ok: false, found: format!("{}: {e}", path.display()), help },
    }
}

/// What the worker prints where it is asked by `flag`, in a process that may crash or hang. An error if it fails: what it
/// printed instead.
fn ask(flag: &str) -> Result<String, Failure> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let run = || -> Result<Result<String, Failure>> {
        let mut command = Command::new(super::programs::worker()?);
        // As a stage computes: variables that lower the precision would fail the check.
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        command.arg(flag).env_clear().envs(environment::of_worker(threads, false));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                return Ok(Err(Failure::Hung(format!("the check did not end in {} s", PATIENCE.as_secs()))));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        if output.status.success() {
            return Ok(Ok(text(&output.stdout)));
        }
        let said = text(&output.stderr);
        // libtorch's own errors end with a backtrace.
        let line = said.lines().find_map(|line| line.strip_prefix("error: ")).or_else(|| said.lines().last());
        let ended = || format!("the check ended by {}", output.status);
        Ok(Err(Failure::Failed(line.map_or_else(ended, String::from))))
    };
    run().unwrap_or_else(|error| Err(Failure::Missing(format!("{error:#}"))))
}

/// Why the worker did not answer.
enum Failure {
    /// It cannot be started.
    Missing(String),
    /// It did not end.
    Hung(String),
    /// It says so.
    Failed(String),
}

/// Has the worker compute convolutions of small networks.
fn kernels() -> Finding {
    let (ok, found, help) = match ask("--self-test") {
        Ok(said) => (true, said, ""),
        Err(Failure::Missing(why)) => (false, why, "build it with `make build`"),
        Err(Failure::Hung(why)) => {
            (false, why, "try again on an idle machine; if it hangs again, set ONEDNN_MAX_CPU_ISA=AVX")
        }
        Err(Failure::Failed(why)) => (
            false,
            why,
            "this CPU and this libtorch do not fit: train on another machine, or try ONEDNN_MAX_CPU_ISA=AVX",
        ),
    };
    Finding { what: "kernels", ok, found, help: Some(help.into()) }
}

/// Has the worker load the CUDA part of libtorch and multiply on every GPU. Without a driver there is nothing to load.
fn gpus() -> Vec<Finding> {
    let lost = |found: String, help: Option<String>| vec![Finding { what: "GPU", ok: false, found, help }];
    match ask("--gpus") {
        Ok(said) => match serde_json::from_str::<Value>(&said) {
            Ok(report) => match report["none"].as_str() {
                Some(why) => lost(format!("none, {why}; stages run on the CPU"), None),
                None => described(&report),
            },
            Err(_) => lost(said, Some("build the worker with `make build`".into())),
        },
        Err(Failure::Failed(why)) => match why.rsplit_once("; ") {
            Some((found, help)) => lost(found.into(), Some(help.into())),
            None => lost(why, Some("compute with --device cpu until this GPU works".into())),
        },
        Err(Failure::Hung(why)) => lost(why, Some("the driver may hang: see `dmesg`, and try `nvidia-smi`".into())),
        Err(Failure::Missing(why)) => lost(why, Some("build it with `make build`".into())),
    }
}

/// The GPUs, and the software for them.
fn described(report: &Value) -> Vec<Finding> {
    let gpus = report["gpus"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_string();
    let gpu = |gpu: &Value| {
        let distance = gpu["distance"].as_f64().unwrap_or(f64::NAN);
        let memory = bytes(gpu["memory"].as_u64().unwrap_or_default());
        format!("{}, {memory}, products within {distance:.0e} of the CPU's", text(&gpu["gpu"]))
    };
    let found = gpus.iter().map(gpu).collect::<Vec<_>>().join("; ");
    let first = gpus.first().unwrap_or(&Value::Null);
    let [cuda, cudnn, driver] = ["cuda", "cudnn", "driver"].map(|name| text(&first[name]));
    let (torch, file) = (text(&report["torch"]), text(&report["file"]));
    let software = format!("PyTorch {torch}, CUDA {cuda}, cuDNN {cudnn}, driver for CUDA {driver}: {file}");
    let finding = |what, found| Finding { what, ok: true, found, help: None };
    vec![finding("GPU", found), finding("CUDA", software)]
}

fn disk(cache: &Path) -> Finding {
    let what = "disk";
    let folder = cache.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let gib = Space::of(folder).map_or(0, |left| left.bytes) as f64 / f64::from(1 << 30);
    let found = format!("{gib:.1} GiB free for the store {}", cache.display());
    Finding {
        what,
        ok: gib >= 2.0,
        found,
        help: Some("tiny.ron takes less than 1 GiB; choose another place with --cache".into()),
    }
}
