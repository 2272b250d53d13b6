//! Measures how fast a step is and where its time is spent. The step is measured on noise in device memory; the loader,
//! separately, on synthetic images.

use super::{
    collective,
    compute::Compute,
    contrast::Contrast,
    method::{Part, StepOutput},
    methods::caco,
    momentum_contrast::{Constants, MomentumContrast, Rates},
    optimizer::Rule,
};
use crate::{
    bridge::{self, Lars, team},
    device,
    model::{Bank, Shape, normalise},
    out_of_memory,
};
use anyhow::{Context as _, Result, ensure};
use caco_data::{
    Loader, Reading, Transform,
    batch::{Pixels, Source as _},
    format, index, synth,
};
use caco_kinds::{Activations, Determinism, Format, Model, Objective, Precision, View, Views};
use caco_measure::rng::Rng;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tch::{Cuda, Device, Kind, Tensor};

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The network.
    pub model: Model,
    /// The views compared in a step.
    pub views: Views,
    /// Images per step.
    pub batch: usize,
    /// Columns of the bank.
    pub bank: i64,
    /// Floating-point precision of the encoders.
    pub precision: Precision,
    /// On which machines results have the same bytes.
    #[serde(default)]
    pub determinism: Determinism,
    /// Shards into which a batch is cut.
    #[serde(default = "one")]
    pub shards: usize,
    /// Which activations are kept for the backward pass.
    pub activations: Activations,
    /// The device: `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Threads per operation, and threads of the loader, in each process.
    pub threads: usize,
    /// Steps to measure; the same number again is measured part by part.
    pub steps: u32,
    /// Processes that take them together, each on its part of a batch.
    #[serde(default = "one")]
    pub processes: usize,
}

/// A batch that is not cut.
pub(super) fn one() -> usize {
    1
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The determinism class of the measurement, as recorded in results.
    pub class: serde_json::Value,
    /// BLAKE3 of the state after the measured steps, and of their losses. Not of a GPU's, from which it would be copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Training images per second, over whole steps on images in device memory.
    pub images_per_second: f64,
    /// CPU seconds of the cheapest step, over all threads of the first process: nearly independent of other load on the machine.
    pub cpu_seconds: f64,
    /// Peak memory of the process in bytes, without GPU memory.
    pub peak_memory: u64,
    /// Peak memory of the GPU, if steps are taken on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<GpuMemory>,
    /// Milliseconds that a step spends in each part. On a GPU the device is synchronised between parts, which costs a
    /// little. `load` is the time of the loader's threads for a batch on their own; in training they run concurrently
    /// with the step. `exchange` is the part of all of them that exchanges with other processes take, with waiting for these, but not
    /// those between GPUs.
    pub milliseconds: BTreeMap<&'static str, f64>,
}

/// Peak memory of a GPU in bytes, as libtorch's allocator counts it: with the workspaces of cuDNN, without what CUDA takes
/// for itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GpuMemory {
    /// What tensors used.
    pub allocated: u64,
    /// What was taken from the driver for them.
    pub reserved: u64,
}

/// Measures steps of the paper's method. `join` is called with the device, to join other processes.
pub fn step(setup: &Setup, join: &dyn Fn(Device) -> Result<()>) -> Result<Report> {
    out_of_memory::caught(out_of_memory::TRAINING, || measure(setup, join))
}

fn measure(setup: &Setup, join: &dyn Fn(Device) -> Result<()>) -> Result<Report> {
    ensure!(setup.steps > 0 && setup.batch > 1, "give at least one step, and a batch of at least two");
    let device = device::open(&setup.device, setup.threads, setup.determinism)?;
    join(device)?;
    let query = Shape::from(&setup.model).draw(0, Kind::Float, device);
    let bank = Bank::draw(setup.model.dim.into(), setup.bank, 0, Kind::Float, device);
    let mut state = MomentumContrast::start(query, bank);
    let pixels = noise(setup);
    let views: Vec<Tensor> = pixels.iter().map(|p| normalise(p, device)).collect();
    for _ in 0..2 {
        take(setup, &mut state, &views)?;
    }
    synchronise(device);
    let (start, mut best, exchanged) = (Instant::now(), Duration::MAX, team::seconds());
    let mut losses = Vec::new();
    for _ in 0..setup.steps {
        let step = cpu_time();
        losses.push(take(setup, &mut state, &views)?.loss);
        best = best.min(cpu_time() - step);
    }
    synchronise(device);
    let (seconds, exchanged) = (start.elapsed().as_secs_f64(), team::seconds() - exchanged);
    let digest = (device == Device::Cpu).then(|| digest(&state, &losses)).transpose()?;
    let (peak_memory, gpu_memory) = (peak_memory(), gpu_memory(device)?);
    let mut milliseconds = parts(setup, device, &mut state, &pixels)?;
    if setup.processes > 1 {
        milliseconds.insert("exchange", exchanged * 1e3 / f64::from(setup.steps));
    }
    if collective::here().rank() == 0 {
        milliseconds.insert("load", load(setup)? * 1e3);
    }
    Ok(Report {
        class: device::class(),
        digest,
        images_per_second: (setup.batch as f64 * f64::from(setup.steps)) / seconds,
        cpu_seconds: best.as_secs_f64(),
        peak_memory,
        gpu_memory,
        milliseconds,
    })
}

/// The rates of all timed steps.
pub(super) const RATES: Rates = Rates { encoder: 0.1, bank: 3.0, key_momentum: 0.99 };

/// The paper's constants.
pub(super) fn constants(precision: Precision, activations: Activations, shards: usize) -> Constants {
    Constants {
        contrast: Contrast { objective: Objective::CaCo, temperature: 0.08, bank_temperature: 0.08 },
        bank_momentum: 0.9,
        rule: Rule::Lars(Lars { momentum: 0.9, weight_decay: 1.5e-6, trust: 0.001 }),
        compute: Compute { precision, activations, accumulate: 1, shards },
    }
}

fn take(setup: &Setup, state: &mut MomentumContrast, views: &[Tensor]) -> Result<StepOutput> {
    let constants = constants(setup.precision, setup.activations, setup.shards);
    caco::step(state, views, &constants, RATES, 0, &mut |_| ())
}

/// BLAKE3 of all tensors, and of these losses.
fn digest(state: &MomentumContrast, losses: &[Tensor]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for tensor in state.changed().iter().map(|changed| &changed.tensor).chain(losses) {
        let values = Vec::<f32>::try_from(tensor.detach().contiguous().view(-1))?;
        for value in values {
            hasher.update(&value.to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The part of this process in a batch of every view.
fn noise(setup: &Setup) -> Vec<Pixels> {
    let view = |(number, view): (u64, View)| {
        let mut rng = Rng::new(0, "bench", 0, number);
        let size = view.size();
        let data: Vec<u8> = (0..setup.batch * size * size * 3).map(|_| rng.next_u64() as u8).collect();
        let (rank, own) = (collective::here().rank(), data.len() / setup.processes);
        let data = data[rank * own..][..own].to_vec();
        Pixels { count: setup.batch / setup.processes, size: (size, size), data: data.into() }
    };
    (0..).zip(setup.views.list()).map(view).collect()
}

/// CPU time used by this process, over all threads.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux and macOS, and the result has its type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Peak memory of this process in bytes.
fn peak_memory() -> u64 {
    // SAFETY: plain data, for which zeros are valid; the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    // Linux counts in KiB, macOS in bytes.
    usage.ru_maxrss as u64 * if cfg!(target_os = "macos") { 1 } else { 1024 }
}

fn gpu_memory(device: Device) -> Result<Option<GpuMemory>> {
    let Device::Cuda(number) = device else { return Ok(None) };
    let (allocated, reserved) = bridge::gpu_memory(number)?;
    Ok(Some(GpuMemory { allocated, reserved }))
}

/// Waits for the device.
pub(super) fn synchronise(device: Device) {
    if let Device::Cuda(number) = device {
        Cuda::synchronize(number as i64);
    }
}

/// Seconds that the loader's threads take for a batch of all views, from JPEG files of the size of the large views.
/// Files are read from the page cache.
fn load(setup: &Setup) -> Result<f64> {
    let folder = std::env::temp_dir().join(format!("caco-bench-{}", std::process::id()));
    let measure = || -> Result<f64> {
        let drawn = serde_json::json!({"domain": "Shapes", "classes": 2, "train": setup.batch.next_multiple_of(2), "test": 2,
            "size": setup.views.list()[0].size()});
        synth::draw(&serde_json::from_value(drawn)?, &folder, |_, _| ())?;
        let train = folder.join("train");
        let (set, _) = index::build(&train, format::list(Format::ImageFolder, None, &train)?, |_, _| ());
        let transform = Transform::Views(setup.views.list());
        let (batch, threads) = (setup.batch, setup.threads);
        let loader = Loader::new(&set, Reading { transform, batch, shuffle: true, drop_last: true, seed: 0, threads })?;
        let mut seconds = Vec::new();
        for epoch in 0..3 {
            let start = Instant::now();
            loader.epoch(epoch, 0)?.try_for_each(|batch| batch.map(drop))?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[1])
    };
    let measured = measure();
    let _ = std::fs::remove_dir_all(&folder);
    measured.context("cannot measure the loader")
}

fn parts(
    setup: &Setup,
    device: Device,
    state: &mut MomentumContrast,
    pixels: &[Pixels],
) -> Result<BTreeMap<&'static str, f64>> {
    let mut times = BTreeMap::new();
    let each = 1e3 / f64::from(setup.steps);
    for _ in 0..setup.steps {
        let mut last = Instant::now();
        let mut lap = |name: &'static str| {
            synchronise(device);
            *times.entry(name).or_insert(0.0) += last.elapsed().as_secs_f64() * each;
            last = Instant::now();
        };
        let views: Vec<Tensor> = pixels.iter().map(|p| normalise(p, device)).collect();
        lap("copy");
        let constants = constants(setup.precision, setup.activations, setup.shards);
        caco::step(state, &views, &constants, RATES, 0, &mut |part| {
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
