//! Selects the device and sets up libtorch for a stage: threads, determinism, and CUDA if there is a GPU.

use crate::{
    bridge, cuda,
    driver::{self, Driver},
    portable,
};
use anyhow::{Context as _, Result, bail, ensure};
use caco_kinds::Determinism;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs,
    sync::{Mutex, Once},
};
use tch::Device;

/// Environment variable for the device that numeric tests compute on.
pub const TEST: &str = "CACO_TEST_DEVICE";

/// A device, and how it was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The name that was asked for.
    pub asked: String,
    /// The device: `cpu` or `cuda:N`.
    #[serde(serialize_with = "by_name")]
    pub device: Device,
    /// Why it is this one.
    pub why: String,
    /// The CPU: its vendor, and the instruction sets by which kernels are chosen.
    pub cpu: String,
    /// Whether there is a GPU, or should be one, that cannot be used.
    #[serde(skip)]
    lost: bool,
}

fn by_name<S: serde::Serializer>(device: &Device, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name(*device))
}

/// The name of a device, as [`open`] takes it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".into(),
    }
}

static OPENED: Mutex<Option<(Choice, usize)>> = Mutex::new(None);

/// Sets up libtorch and returns the device called `name`: `auto` (the first GPU, or the CPU without one), `cpu`, `cuda`
/// (the first GPU) or `cuda:N`. Must be called before the first tensor is created. `threads` is the number of threads
/// per operation; portable results are computed on the CPU, by so many threads with one operation each.
pub fn open(name: &str, threads: usize, determinism: Determinism) -> Result<Device> {
    let choice = match determinism {
        Determinism::Fast => choose(name)?,
        Determinism::Portable => for_portable(name)?,
    };
    let shown = self::name(choice.device);
    match choice.lost {
        true => tracing::warn!("device {shown}: {}", choice.why),
        false => tracing::info!("device {shown}: {}", choice.why),
    }
    static FIRST: Once = Once::new();
    // libtorch allows this call only once.
    FIRST.call_once(|| tch::set_num_interop_threads(1));
    match determinism {
        Determinism::Fast => tch::set_num_threads(i32::try_from(threads.max(1)).context("number of threads")?),
        Determinism::Portable => portable::start(threads.max(1))?,
    }
    bridge::deterministic(true)?;
    bridge::keep_memory()?;
    let device = choice.device;
    *OPENED.lock().unwrap_or_else(|e| e.into_inner()) = Some((choice, threads.max(1)));
    Ok(device)
}

/// Opens the device that numeric tests compute on: the one in [`TEST`], or the CPU.
pub fn for_tests(threads: usize) -> Result<Device> {
    let name = std::env::var_os(TEST).unwrap_or_else(|| "cpu".into());
    open(&name.to_string_lossy(), threads, Determinism::Fast)
}

fn for_portable(name: &str) -> Result<Choice> {
    ensure!(
        ["auto", "cpu"].contains(&name),
        "determinism: Portable computes on the CPU, and not on device '{name}'; give determinism: Fast for a GPU"
    );
    Ok(Choice {
        asked: name.into(),
        device: Device::Cpu,
        why: "results must be portable".into(),
        cpu: cpu(),
        lost: false,
    })
}

/// The last opened device, and why it was chosen. None if no stage opened one.
pub fn choice() -> Option<Choice> {
    OPENED.lock().unwrap_or_else(|e| e.into_inner()).as_ref().map(|(choice, _)| choice.clone())
}

fn choose(name: &str) -> Result<Choice> {
    let chosen = |device, why, lost| Ok(Choice { asked: name.into(), device, why, cpu: cpu(), lost });
    let numbered = name.strip_prefix("cuda:").map(str::parse::<usize>);
    match (name, numbered) {
        ("cpu", _) => chosen(Device::Cpu, "it was asked for".into(), false),
        ("auto", _) => match gpu(0) {
            Ok(why) => chosen(Device::Cuda(0), why, false),
            Err(error) => {
                let lost = !is_absence(&error);
                chosen(Device::Cpu, format!("{error:#}"), lost)
            }
        },
        ("cuda", _) => chosen(Device::Cuda(0), gpu(0).with_context(|| unusable(name))?, false),
        (_, Some(Ok(number))) => chosen(Device::Cuda(number), gpu(number).with_context(|| unusable(name))?, false),
        _ => bail!("device '{name}' is not one of auto, cpu, cuda and cuda:N"),
    }
}

fn unusable(name: &str) -> String {
    format!("device '{name}' cannot be used")
}

/// Whether a GPU could not be opened because there is none, which is no fault.
pub fn is_absence(error: &anyhow::Error) -> bool {
    error.is::<driver::Absent>() || error.is::<NoGpu>()
}

/// The driver sees no GPU, for example because CUDA_VISIBLE_DEVICES is empty.
#[derive(Debug, thiserror::Error)]
#[error("the NVIDIA driver sees no GPU{}", visible())]
struct NoGpu;

fn visible() -> String {
    let list = std::env::var_os("CUDA_VISIBLE_DEVICES");
    list.map_or_else(String::new, |list| format!(" (CUDA_VISIBLE_DEVICES={})", list.to_string_lossy()))
}

/// Makes GPU `number` usable. Returns what it is and which file computes on it.
fn gpu(number: usize) -> Result<String> {
    // The driver first: loading the CUDA half takes a second and a gigabyte.
    let driver = Driver::open()?;
    let there = driver.devices();
    ensure!(there > 0, NoGpu);
    ensure!(number < there, "there is no GPU {number}: the NVIDIA driver shows {there}, counted from 0{}", visible());
    let half = cuda::load().context("the CUDA part of libtorch cannot be loaded")?;
    let seen = cuda::devices();
    if number >= seen {
        let (version, torch) = (driver.version()?, half.torch.unwrap_or_else(bridge::version));
        bail!(
            "libtorch sees {seen} of the {there} GPUs of the NVIDIA driver, which is for CUDA {version}; PyTorch {torch} may \
             need a newer one"
        );
    }
    Ok(format!("{}, with {}", driver.gpu(number)?.name, half.file.display()))
}

/// The determinism class of the last opened device: two runs in the same class give the same bits. It consists of the
/// CPU vendor and the instruction sets by which kernels are chosen, the threads per operation, the libtorch version;
/// and for a GPU what [`describe`] returns: its name, the number of its multiprocessors, the newest CUDA that the driver
/// supports, and the versions of the CUDA runtime, cuBLASLt and cuDNN. Portable results are a class of their own.
///
/// Not in it: the build of the driver, and the versions of libraries that no stage computes with (cuFFT, cuSPARSE, cuRAND,
/// NCCL). Nor are variables that choose kernels, which the record has by themselves, and the free memory of the GPU: near its
/// limit, cuDNN takes an algorithm with a smaller workspace.
pub fn class() -> Value {
    if portable::on() {
        return json!({"portable": 1, "arch": std::env::consts::ARCH, "libtorch": bridge::version()});
    }
    let opened = OPENED.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let (device, threads) =
        opened.map_or((Device::Cpu, tch::get_num_threads() as usize), |(choice, threads)| (choice.device, threads));
    let mut class = json!({"cpu": cpu(), "threads": threads, "libtorch": bridge::version()});
    if let Device::Cuda(number) = device {
        class["gpu"] = "unknown".into();
        if let Ok(gpu) = describe(number) {
            class.as_object_mut().into_iter().for_each(|class| class.extend(gpu.clone()));
        }
    }
    class
}

/// What of a GPU and its software decides bits. The CUDA half must be loaded.
pub fn describe(number: usize) -> Result<serde_json::Map<String, Value>> {
    let driver = Driver::open()?;
    let gpu = driver.gpu(number)?;
    let versions = bridge::gpu_versions()?;
    let cudnn = versions.cudnn;
    let described = json!({
        "gpu": gpu.name,
        "multiprocessors": gpu.multiprocessors,
        "driver": driver.version()?.to_string(),
        "cuda": driver::Version(versions.cuda).to_string(),
        "cublas": versions.cublas,
        "cudnn": format!("{}.{}.{}", cudnn / 10_000, cudnn % 10_000 / 100, cudnn % 100),
    });
    Ok(described.as_object().cloned().unwrap_or_default())
}

/// Vendor and instruction sets, such as `AuthenticAMD avx2 fma avx512f avx512_bf16`.
fn cpu() -> String {
    const SETS: [&str; 12] = [
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "asimd",
        "bf16",
        "sve",
    ];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |names: [&str; 2]| {
        let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let vendor = field(["vendor_id", "CPU implementer"]);
    let flags: Vec<&str> = field(["flags", "Features"]).split_whitespace().collect();
    let present = SETS.into_iter().filter(|set| flags.contains(set));
    std::iter::once(vendor).chain(present).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(choose("cpu").unwrap().device, Device::Cpu);
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda0"] {
            let error = choose(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("'{wrong}' is not one of auto, cpu, cuda and cuda:N")), "{error}");
        }
    }

    #[test]
    fn a_class_names_threads_and_library() {
        open("cpu", 2, Determinism::Fast).unwrap();
        let class = class();
        assert_eq!(class["threads"], 2);
        assert_eq!(class["libtorch"], "2.11.0");
        assert!(class["cpu"].as_str().unwrap().contains(' '), "{class}");
        assert_eq!(class["gpu"], Value::Null);
    }
}
