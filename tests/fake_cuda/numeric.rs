//! Numeric tests can be pointed at a GPU. What comes out of the fake is no number; that they compute there is all.

use crate::machine::{Done, Machine};
use std::path::Path;

#[test]
fn recorded_steps_are_replayed_on_a_gpu() {
    let Some(machine) = Machine::new() else { return };
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/sym-basic");
    let replay = Path::new(env!("CARGO_BIN_EXE_caco")).with_file_name("examples").join("replay");
    let replay = |device: &str| -> Done {
        machine.program(replay.to_str().unwrap()).args(["--device", device]).arg(&case).output().unwrap().into()
    };
    let done = replay("cuda:0");
    assert!(!done.success && done.stderr.contains("1 of 1 cases differ"), "{}", done.stderr);
    assert!(machine.counts().iter().any(|counts| counts.launches > 1000));
    assert!(replay("cpu").success);
}
