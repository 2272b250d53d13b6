//! The method against float64 trajectories of an independent implementation; see tests/parity/README.md.

use caco::train::replay::replay;
use std::path::Path;

#[test]
fn every_case_agrees_to_a_billionth() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    for case in ["sym-basic", "sym-bottleneck", "multicrop", "warm"] {
        let worst = replay(&cases.join(case)).unwrap();
        assert!(worst.distance <= 1e-9, "{case}: {} at {}", worst.distance, worst.place);
    }
}
