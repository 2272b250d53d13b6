//! Too little memory on the GPU.

use crate::{
    machine::{Machine, step},
    stage::PIPELINE,
};

#[test]
fn too_little_memory_is_one_sentence_with_a_way_out() {
    for activations in ["Keep", "Recompute"] {
        let Some(machine) = Machine::new().map(|machine| machine.with("FAKE_CUDA_MIB", "256")) else { return };
        let mut setup = step("cuda");
        setup["batch"] = 512.into();
        setup["activations"] = activations.into();
        let done = machine.worker("--bench-step", &setup.to_string());
        assert!(!done.success);
        let lines: Vec<&str> = done.stderr.lines().filter(|line| !line.contains("INFO")).collect();
        assert_eq!(lines.len(), 1, "{}", done.stderr);
        assert!(lines[0].starts_with("error: the GPU has too little memory: "), "{}", lines[0]);
        assert!(
            lines[0].contains(" MiB more are needed, and ")
                && lines[0].contains("of 256.00 MiB are free; take `activations"),
            "{}",
            lines[0]
        );
    }
}

#[test]
fn a_training_says_what_takes_less() {
    let Some(machine) = Machine::new().map(|machine| machine.with("FAKE_CUDA_MIB", "64").with("FAKE_CUDA_READ", "1"))
    else {
        return;
    };
    machine.write("p.ron", &PIPELINE.replace("batch: 8", "batch: 32").replace("size: 32), batch", "size: 224), batch"));
    let done = machine.caco(&["run", "p.ron", "pretrain", "--device", "cuda"]);
    assert!(!done.success);
    let said = done.stderr.lines().find(|line| line.contains("the GPU has too little memory")).unwrap_or(&done.stderr);
    assert!(said.contains("step 1 (epoch 0): ") && said.contains("; take `activations: Recompute`"), "{said}");
    assert!(!done.stderr.contains("frame #") && !done.stderr.contains("panicked"), "{}", done.stderr);
}
