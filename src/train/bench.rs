//! How fast a step is, and where its time goes. Made-up images: the loader has a bench of its own.

use super::{
    caco::{Constants, Part, Rates, State},
    contrast::Contrast,
};
use crate::{
    bridge::Lars,
    data::batch::Pixels,
    model::{Bank, Shape, normalise},
    rng::Rng,
    spec::kind::{Model, Objective, Precision},
};
use anyhow::Result;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tch::{Cuda, Device, Kind, Tensor};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The network.
    pub model: Model,
    /// Side of both views, pixels.
    pub size: usize,
    /// Images a step.
    pub batch: usize,
    /// Columns of the bank.
    pub bank: i64,
    /// Arithmetic of the encoders.
    pub precision: Precision,
    /// Where.
    pub device: Device,
    /// Steps measured; as many again are measured part by part.
    pub steps: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Images trained on in a second, over whole steps on images that lie on the device.
    pub images_per_second: f64,
    /// CPU seconds, of all threads together, of the cheapest step: what a busy machine does not change much.
    pub cpu_seconds: f64,
    /// Milliseconds a step spends in each part. On a GPU the device is waited for between parts, which costs a little.
    pub milliseconds: BTreeMap<&'static str, f64>,
}

/// Measures single-crop steps of the paper's method.
pub fn step(setup: &Setup) -> Result<Report> {
    let query = Shape::from(&setup.model).draw(0, Kind::Float, setup.device);
    let bank = Bank::draw(setup.model.dim.into(), setup.bank, 0, Kind::Float, setup.device);
    let mut state = State::start(query, bank);
    let pixels = [noise(setup, 0), noise(setup, 1)];
    let views: Vec<Tensor> = pixels.iter().map(|p| normalise(p, setup.device)).collect();
    for _ in 0..2 {
        state.step(&views, &constants(setup), RATES, 0)?;
    }
    settle(setup.device);
    let (start, mut best) = (Instant::now(), Duration::MAX);
    for _ in 0..setup.steps {
        let step = cpu_time();
        state.step(&views, &constants(setup), RATES, 0)?;
        best = best.min(cpu_time() - step);
    }
    settle(setup.device);
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report {
        images_per_second: (setup.batch as f64 * f64::from(setup.steps)) / seconds,
        cpu_seconds: best.as_secs_f64(),
        milliseconds: parts(setup, &mut state, &pixels)?,
    })
}

const RATES: Rates = Rates { encoder: 0.1, bank: 3.0, key_momentum: 0.99 };

fn constants(setup: &Setup) -> Constants {
    Constants {
        contrast: Contrast { objective: Objective::CaCo, temperature: 0.08, bank_temperature: 0.08 },
        bank_momentum: 0.9,
        lars: Lars { momentum: 0.9, weight_decay: 1.5e-6, trust: 0.001 },
        precision: setup.precision,
    }
}

fn noise(setup: &Setup, view: u64) -> Pixels {
    let mut rng = Rng::new(0, "bench", 0, view);
    let data = (0..setup.batch * setup.size * setup.size * 3).map(|_| rng.next_u64() as u8).collect();
    Pixels { count: setup.batch, size: (setup.size, setup.size), data }
}

/// CPU time that this process has used, all threads together.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux and macOS, and the result has its type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn settle(device: Device) {
    if let Device::Cuda(number) = device {
        Cuda::synchronize(number as i64);
    }
}

fn parts(setup: &Setup, state: &mut State, pixels: &[Pixels]) -> Result<BTreeMap<&'static str, f64>> {
    let mut times = BTreeMap::from(["load", "copy"].map(|name| (name, 0.0)));
    let each = 1e3 / f64::from(setup.steps);
    for _ in 0..setup.steps {
        let mut last = Instant::now();
        let mut lap = |name: &'static str| {
            settle(setup.device);
            *times.entry(name).or_insert(0.0) += last.elapsed().as_secs_f64() * each;
            last = Instant::now();
        };
        let views: Vec<Tensor> = pixels.iter().map(|p| normalise(p, setup.device)).collect();
        lap("copy");
        state.timed_step(&views, &constants(setup), RATES, 0, &mut |part| {
            lap(match part {
                Part::Forward => "forward",
                Part::Keys => "keys",
                Part::Bank => "bank",
                Part::Backward => "backward",
                Part::Optimizer => "optimizer",
            })
        })?;
    }
    Ok(times)
}
