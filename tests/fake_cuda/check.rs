//! The checks for a machine with a GPU, on a fake one.

use crate::machine::{Done, Machine};
use std::{fs, os::unix::fs::symlink, path::Path};

#[test]
fn the_checks_for_a_gpu_run_and_are_resumed() {
    let Some(machine) = Machine::new() else { return };
    let caco = Path::new(env!("CARGO_BIN_EXE_caco"));
    for program in ["caco", "caco-worker"] {
        symlink(caco.with_file_name(program), machine.path(program)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu_check.py");
    fs::copy(script, machine.path("gpu_check.py")).unwrap();
    let run = |arguments: &[&str]| -> Done {
        machine.program("python3").arg("gpu_check.py").args(arguments).output().unwrap().into()
    };
    let without_time = run(&["--seconds", "1"]);
    assert_eq!(without_time.code, Some(75), "{}", without_time.stdout);
    assert!(
        without_time.stdout.contains("not run for lack of time: machine, device, doctor"),
        "{}",
        without_time.stdout
    );
    let done = run(&["--only", "machine", "--only", "device", "--only", "doctor"]);
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(!done.stdout.contains("FAIL") && done.stdout.matches("Fake H200").count() >= 3, "{}", done.stdout);
    let report = fs::read_to_string(machine.path("out/report.json")).unwrap();
    assert!(report.contains(r#""verdict": "PASS""#) && report.contains(r#""gpu": "Fake H200""#), "{report}");
}
