//! A training step: what is launched, and that nothing waits.

use crate::machine::{Counts, Machine};
use serde_json::{Value, json};

const STEPS: u64 = 3;

/// The paper's network on small images, at which it launches the same work.
fn setup(views: Value, precision: &str, activations: &str) -> Value {
    json!({
        "model": {"arch": "ResNet50", "width": 64, "stem": "Imagenet", "hidden": 2048, "dim": 256},
        "views": views, "batch": 8, "bank": 1024, "precision": precision, "activations": activations,
        "device": "cuda:0", "threads": 1, "steps": STEPS,
    })
}

#[test]
fn a_step_launches_this_much_and_waits_for_nothing() {
    let mut table =
        String::from("a step: kernels, convolutions and norms of cuDNN, products, fills, copies within the GPU\n");
    for (name, views, copied) in [
        ("single crop", json!({"SingleCrop": {"size": 64}}), 2),
        ("multi-crop", json!({"MultiCrop": {"size": 64, "small": 32, "count": 6}}), 8),
    ] {
        for precision in ["Bf16", "F32"] {
            for activations in ["Keep", "Recompute"] {
                let Some(machine) = Machine::new() else { return };
                let done = machine.worker("--bench-step", &setup(views.clone(), precision, activations).to_string());
                assert!(done.success, "{name} {precision} {activations}: {}", done.stderr);
                // One line for the device; a warning would be a line in every step.
                assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
                // The bench waits for the GPU before the steps, after them, and after each part of later ones, the first
                // of which is the copy of the views.
                let counts = machine.counts();
                let steps = counts[1].since(counts[0]);
                // The wait at the end is its own.
                assert_eq!(
                    (steps.waits - 1, steps.to_host, steps.to_device),
                    (0, 0, 0),
                    "{name} {precision} {activations}"
                );
                let copy = counts[2].since(counts[1]);
                assert_eq!((copy.waits - 1, copy.to_host, copy.to_device), (0, 0, copied), "{name}");
                assert_eq!((copy.aside, copy.joins), (copied, copied), "{name}");
                let Counts { launches, dnn, gemms, memsets, inside, .. } = steps;
                let all = [launches, dnn, gemms, memsets, inside];
                assert!(all.iter().all(|count| count % STEPS == 0), "steps differ: {steps:?}");
                let [launches, dnn, gemms, memsets, inside] = all.map(|count| count / STEPS);
                table += &format!(
                    "{name:11} {precision:4} {activations:9} {launches:5} {dnn:5} {gemms:5} {memsets:5} {inside:5}\n"
                );
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_bench_prints_the_memory_of_the_gpu() {
    let Some(machine) = Machine::new() else { return };
    let arguments = [
        "bench", "step", "--arch", "resnet18", "--size", "32", "--bank", "64", "--batch", "4", "--steps", "1",
        "--device",
    ];
    let shown = |device: &str, more: &[&str]| {
        let done = machine.caco(&[&arguments[..], &[device], more].concat());
        assert!(done.success, "{}", done.stderr);
        done.stdout
    };
    let report: Value = serde_json::from_str(&shown("cuda", &["--json"])).unwrap();
    let [allocated, reserved] = ["allocated", "reserved"].map(|name| report["gpu_memory"][name].as_u64().unwrap());
    assert!(allocated > 10 << 20 && reserved >= allocated, "{report}");
    assert!(shown("cuda:0", &[]).lines().next().unwrap().contains("of the GPU's"));
    assert!(!shown("cpu", &[]).contains("GPU"));
}
