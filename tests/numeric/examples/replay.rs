//! Replays recorded steps in f64 and compares everything they change: `cargo run --release --example replay --
//! [--device cuda:0] CASE_DIR…`. Prints a line of JSON for each case, {"case": …, "worst": …, "where": …}, and fails if
//! one is above 1e-9. See tests/reference/README.md for the format of cases.

use anyhow::{Result, ensure};
use caco_learn::{device, train::replay::replay};
use std::path::PathBuf;

fn main() -> Result<()> {
    let (mut name, mut cases, mut arguments) = (String::from("cpu"), Vec::new(), std::env::args_os().skip(1));
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--device") => name = arguments.next().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            _ => cases.push(PathBuf::from(argument)),
        }
    }
    ensure!(!cases.is_empty(), "no case is given; usage: replay [--device DEVICE] CASE_DIR…");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device = device::open(&name, threads)?;
    let mut far = 0;
    for case in &cases {
        let worst = replay(case, device)?;
        println!("{}", serde_json::json!({"case": case, "worst": worst.distance, "where": worst.place}));
        far += usize::from(worst.distance.is_nan() || worst.distance > 1e-9);
    }
    ensure!(far == 0, "{far} of {} cases differ by more than 1e-9", cases.len());
    Ok(())
}
