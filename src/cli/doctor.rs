//! `caco doctor`

use super::{Project, print, print_json};
use anyhow::Result;
use caco_engine::disk::Space;
use clap::Args;
use serde::Serialize;
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
    help: Option<&'static str>,
}

pub fn main(args: &DoctorArgs, project: &Project) -> Result<ExitCode> {
    let findings = [
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
        gpu(),
        disk(&project.shown(project.cache())),
    ];
    if args.json {
        print_json(&findings)?;
    } else {
        for f in &findings {
            let mark = if f.ok { "ok  " } else { "no  " };
            print(&format!("{mark}{:18} {}\n", f.what, f.found))?;
            if let Some(help) = f.help.filter(|_| !f.ok) {
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
        _ => Finding { what, ok: false, found: format!("`{program}` is not there or does not work"), help: Some(help) },
    }
}

/// Asks the worker, since this program never loads libtorch.
fn worker() -> Finding {
    let what = "libtorch";
    let help = Some("build it with `make build`");
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

/// Has the worker compute convolutions of small networks, in a process that may crash or hang.
fn kernels() -> Finding {
    const PATIENCE: Duration = Duration::from_secs(20);
    let wrong = "this CPU and this libtorch do not fit: train on another machine, or try ONEDNN_MAX_CPU_ISA=AVX";
    let finding = |ok, found, help| Finding { what: "kernels", ok, found, help: Some(help) };
    let run = || -> Result<Finding> {
        let mut command = Command::new(super::programs::worker()?);
        let mut child = command.arg("--self-test").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                let found = format!("the self-test did not end in {} s", PATIENCE.as_secs());
                return Ok(finding(
                    false,
                    found,
                    "try again on an idle machine; if it hangs again, set ONEDNN_MAX_CPU_ISA=AVX",
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output()?;
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said).trim().to_string();
        let found = if said.is_empty() { format!("the self-test ended by {}", output.status) } else { said };
        Ok(finding(output.status.success(), found, wrong))
    };
    run().unwrap_or_else(|error| finding(false, format!("{error:#}"), "build it with `make build`"))
}

fn gpu() -> Finding {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    let found = match Command::new("nvidia-smi").args(query).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; "),
        _ => return Finding { what: "GPU", ok: false, found: "none; stages run on the CPU".into(), help: None },
    };
    Finding { what: "GPU", ok: true, found, help: None }
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
        help: Some("tiny.ron takes less than 1 GiB; choose another place with --cache"),
    }
}
