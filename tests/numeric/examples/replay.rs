//! Replays recorded steps in f64 and compares everything they change: `cargo run --release --example replay --
//! CASE_DIR`. Prints one line of JSON, {"worst": …, "where": …}, and fails above 1e-9. See tests/reference/README.md
//! for the format of cases.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;

fn main() -> Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("usage: replay CASE_DIR")?.into();
    let worst = caco_learn::train::replay::replay(&folder)?;
    println!("{}", serde_json::json!({"worst": worst.distance, "where": worst.place}));
    ensure!(worst.distance <= 1e-9, "{} differs by {:e}, more than 1e-9", worst.place, worst.distance);
    Ok(())
}
