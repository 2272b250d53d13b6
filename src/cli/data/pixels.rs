//! `caco data pixels`

use super::super::{print, programs};
use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(
    after_help = "The same digest in Python:\n  hashlib.sha256(PIL.Image.open(FILE).convert(\"RGB\").tobytes()).hexdigest()"
)]
pub struct PixelsArgs {
    /// An image
    file: PathBuf,
}

/// The worker's answer (`data/pixels.rs`).
#[derive(Deserialize)]
struct Pixels {
    size: (u64, u64),
    mode: String,
    sha256: String,
}

pub fn main(args: &PixelsArgs) -> Result<ExitCode> {
    let answer = programs::ask("--data-pixels", &json!({"file": args.file}))
        .with_context(|| format!("cannot decode {}", args.file.display()))?;
    let Pixels { size: (width, height), mode, sha256 } =
        serde_json::from_value(answer).context("the worker's answer describes no pixels")?;
    print(&format!("{width} x {height}  {mode}  sha256 {sha256}\n"))?;
    Ok(ExitCode::SUCCESS)
}
