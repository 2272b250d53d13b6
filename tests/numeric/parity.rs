//! Compares the method with float64 trajectories of independent implementations; see tests/reference/README.md.

use caco_learn::{device, tensors::Tensors, train::replay::replay};
use std::{fs, path::Path};

#[test]
fn every_case_agrees_to_a_billionth() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let device = device::for_tests(1).unwrap();
    let (mut replayed, mut in_eight) = (0, 0);
    for folder in ["parity", "reference/cases"] {
        for entry in fs::read_dir(tests.join(folder)).unwrap() {
            let case = entry.unwrap().path();
            if !case.join("case.json").exists() {
                continue;
            }
            let batch = Tensors::read(&case.join("steps.safetensors")).unwrap().tensors["step0.view0"].size()[0];
            for shards in [1, 2, 4, 8].into_iter().filter(|shards| batch % shards == 0) {
                let worst = replay(&case, device, shards as usize).unwrap();
                in_eight += usize::from(shards == 8);
                let place = format!("{} in {shards} shards", case.display());
                assert!(worst.distance <= 1e-9, "{place}: {} at {}", worst.distance, worst.place);
            }
            replayed += 1;
        }
    }
    assert!(in_eight >= 2, "{in_eight} cases in eight shards");
    assert!(replayed >= 36, "{replayed} cases: every method and mode, both block types, every objective");
}
