//! Times the training step: `cargo run --release --example step -- small|large f32|bf16 [STEPS] [THREADS]`. One line of JSON.

use anyhow::{Result, bail};
use caco::{
    device,
    spec::kind::{Arch, Model, Precision, Stem},
    train::bench::{self, Setup},
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize| arguments.get(i).map(String::as_str);
    let (model, size, batch) = match argument(0) {
        Some("small") => (Model { arch: Arch::ResNet18, width: 16, stem: Stem::Cifar, hidden: 256, dim: 64 }, 32, 128),
        Some("large") => {
            (Model { arch: Arch::ResNet50, width: 64, stem: Stem::Imagenet, hidden: 2048, dim: 256 }, 224, 16)
        }
        _ => bail!("usage: step small|large f32|bf16 [STEPS] [THREADS]"),
    };
    let precision = if argument(1) == Some("bf16") { Precision::Bf16 } else { Precision::F32 };
    let steps = argument(2).unwrap_or("5").parse()?;
    let device = device::open("auto", argument(3).unwrap_or("2").parse()?)?;
    let bank = if batch == 128 { 4096 } else { 65536 };
    let report = bench::step(&Setup { model, size, batch, bank, precision, device, steps })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
