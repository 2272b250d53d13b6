//! Replays recorded steps in f64 and compares everything they change:
//!
//!     cargo run --release --example replay -- [--device cuda:0] [--shards 8] CASE_DIR…
//!
//! Prints a line of JSON for each case, {"case": …, "worst": …, "where": …}, and fails if one is above 1e-9. See
//! tests/reference/README.md for the format of cases.

use anyhow::{Context as _, Result, ensure};
use caco_kinds::Determinism;
use caco_learn::{device, train::replay::replay};
use std::path::PathBuf;

fn main() -> Result<()> {
    let (mut name, mut shards, mut cases) = (String::from("cpu"), 1, Vec::new());
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--device") => name = arguments.next().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            Some("--shards") => {
                let number = arguments.next().and_then(|number| number.into_string().ok()).unwrap_or_default();
                shards = number.parse().with_context(|| format!("--shards '{number}' is not a number"))?;
            }
            _ => cases.push(PathBuf::from(argument)),
        }
    }
    ensure!(!cases.is_empty(), "no case is given; usage: replay [--device DEVICE] [--shards N] CASE_DIR…");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device = device::open(&name, threads, Determinism::Fast)?;
    let mut far = 0;
    for case in &cases {
        let worst = replay(case, device, shards)?;
        println!("{}", serde_json::json!({"case": case, "worst": worst.distance, "where": worst.place}));
        far += usize::from(worst.distance.is_nan() || worst.distance > 1e-9);
    }
    ensure!(far == 0, "{far} of {} cases differ by more than 1e-9", cases.len());
    Ok(())
}
