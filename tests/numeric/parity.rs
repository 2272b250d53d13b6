//! Compares the method with float64 trajectories of independent implementations; see tests/reference/README.md.

use caco_learn::{device, tensors::Tensors, train::replay::replay};
use std::{fs, path::Path};
use tch::Device;

/// Replays every case in so many shards, as far as its batch can be cut so. Returns the number of cases, and of those in eight.
pub fn every_case(all: &[i64], device: Device) -> (usize, usize) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut replayed, mut in_eight) = (0, 0);
    for folder in ["parity", "reference/cases"] {
        for entry in fs::read_dir(tests.join(folder)).unwrap() {
            let case = entry.unwrap().path();
            if !case.join("case.json").exists() {
                continue;
            }
            let batch = Tensors::read(&case.join("steps.safetensors")).unwrap().tensors["step0.view0"].size()[0];
            let fitting: Vec<i64> = all.iter().copied().filter(|shards| batch % shards == 0).collect();
            for &shards in &fitting {
                let worst = replay(&case, device, shards as usize).unwrap();
                in_eight += usize::from(shards == 8);
                let place = format!("{} in {shards} shards", case.display());
                assert!(worst.distance <= 1e-9, "{place}: {} at {}", worst.distance, worst.place);
            }
            replayed += usize::from(!fitting.is_empty());
        }
    }
    (replayed, in_eight)
}

#[test]
fn every_case_agrees_to_a_billionth() {
    let (replayed, in_eight) = every_case(&[1, 2, 4, 8], device::for_tests(1).unwrap());
    assert!(in_eight >= 2, "{in_eight} cases in eight shards");
    assert!(replayed >= 36, "{replayed} cases: every method and mode, both block types, every objective");
}
