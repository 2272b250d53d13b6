//! Batches on their way to the GPU.

use crate::{
    machine::{Counts, Machine},
    stage::{PIPELINE, machine, run},
};
use std::fs;

const VIEWS: u64 = 2;

/// Runs one stage, after all that it reads; what it had asked of CUDA at its end.
fn counts(machine: &Machine, stage: &str) -> Counts {
    run(machine, &[stage, "--upstream", "--device", "cuda"]);
    let _ = fs::remove_file(machine.path("cuda.log"));
    run(machine, &[stage, "--device", "cuda"]);
    *machine.counts().last().unwrap()
}

#[test]
fn a_batch_is_copied_beside_the_kernels_of_the_one_before() {
    // Of a training with 64 images in batches of 2, which reads its metrics every 16 steps.
    const STEPS: u64 = 32;
    let counts = |epochs: u64| {
        let machine = machine("1")?;
        let shorter = PIPELINE.replace("batch: 8", "batch: 2").replace("epochs: 3", &format!("epochs: {epochs}"));
        machine.write("p.ron", &shorter);
        Some(counts(&machine, "pretrain"))
    };
    let Some((two, three)) = counts(2).zip(counts(3)) else { return };
    let sent = 2 * STEPS * VIEWS;
    assert_eq!((two.aside, two.joins), (sent, sent), "on a stream of their own, for which the kernels wait: {two:?}");
    assert_eq!(two.early, sent - 2 * VIEWS, "all but the first of an epoch: {two:?}");
    assert!(three.waits - two.waits < STEPS, "{two:?} {three:?}");
}

#[test]
fn features_are_read_while_the_next_batch_is_copied() {
    let Some(machine) = machine("1") else { return };
    machine.write("p.ron", &PIPELINE.replace("resize: 32, crop: 32", "resize: 32, crop: 32, batch: 16"));
    let counts = counts(&machine, "features/train");
    // The first beside the kernels that load the encoder.
    assert_eq!((counts.aside, counts.early), (4, 4), "{counts:?}");
}

#[test]
fn the_loader_writes_into_memory_that_the_gpu_copies_from() {
    let Some(machine) = machine("1") else { return };
    for stage in ["bank", "pretrain", "features/train"] {
        assert_eq!(counts(&machine, stage).pageable, 0, "{stage}");
    }
    // The labels of two epochs of 8 batches.
    assert_eq!(counts(&machine, "linear").pageable, 2 * 8);
    // The monitor reads positions, which must not be those of ones.
    let machine = machine.with("FAKE_CUDA_READ", "0");
    assert_eq!(counts(&machine, "watched").pageable, 0);
}

#[test]
fn memory_of_a_copy_is_used_again_when_the_gpu_is_done_with_it() {
    // 24 steps with views of 8 images of 160 × 160 pixels; libtorch pins powers of two.
    let (sent, view, pinned) = (24 * VIEWS, 8 * 160 * 160 * 3, 1 << 20);
    let counts = |busy: bool| {
        let mut machine = machine("1")?;
        machine.write("p.ron", &PIPELINE.replace("size: 32), batch", "size: 160), batch"));
        if busy {
            machine = machine.with("FAKE_CUDA_BUSY", "1");
        }
        Some(counts(&machine, "pretrain"))
    };
    let Some((idle, busy)) = counts(false).zip(counts(true)) else { return };
    // Three batches that the loader has begun, one that is copied and one that is used; one more while they change.
    assert!(idle.pinned <= 6 * VIEWS * pinned, "{idle:?}");
    assert!(busy.pinned >= sent * pinned, "{busy:?}");
    assert!(busy.peak - idle.peak > (sent - 6 * VIEWS) * view, "{idle:?} {busy:?}");
    assert_eq!(busy.waits, idle.waits, "nothing waits for it");
}
