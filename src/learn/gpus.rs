//! All GPUs, examined for `caco doctor`: what they are, what computes on them, and whether they multiply.

use crate::{bridge, cuda, device, driver::Driver};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::Determinism;
use caco_measure::rng::Rng;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::PathBuf;
use tch::{Device, Tensor};

/// What was found.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// There is no GPU.
    None {
        /// Why.
        none: String,
    },
    /// There are GPUs, and all of them can be used.
    Some {
        /// The file of the CUDA part of libtorch.
        file: PathBuf,
        /// The PyTorch it belongs to, if its folder says so.
        torch: Option<String>,
        /// The GPUs, by number.
        gpus: Vec<Gpu>,
    },
}

/// A GPU that multiplies.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// Its memory, bytes.
    pub memory: u64,
    /// How far a product of two matrices is from that of the CPU, as a share of its largest number.
    pub distance: f64,
    /// Its name, and the versions of its software, as in the determinism class.
    #[serde(flatten)]
    pub class: Map<String, Value>,
}

/// Side of the matrices.
const SIDE: i64 = 64;
/// A product in float32 is this near that of the CPU, with a margin of ten.
const TOLERANCE: f64 = 1e-5;

/// Examines every GPU that this process may use. An error if one of them cannot be used.
pub fn examine() -> Result<Report> {
    match device::open("cuda", 1, Determinism::Fast) {
        Err(error) if device::is_absence(&error) => return Ok(Report::None { none: error.root_cause().to_string() }),
        opened => opened?,
    };
    let (driver, half) = (Driver::open()?, cuda::load()?);
    let gpus = (0..driver.devices()).map(|number| examine_one(&driver, number)).collect::<Result<_>>()?;
    Ok(Report::Some { file: half.file, torch: half.torch, gpus })
}

fn examine_one(driver: &Driver, number: usize) -> Result<Gpu> {
    let distance = multiply(number).with_context(|| format!("GPU {number} does not multiply"))?;
    ensure!(
        distance <= TOLERANCE,
        "GPU {number} multiplies wrongly: a product differs from the CPU's by {distance:.0e} of its largest number"
    );
    Ok(Gpu { memory: driver.gpu(number)?.memory, distance, class: device::describe(number)? })
}

fn multiply(number: usize) -> Result<f64> {
    let matrix = |seed| {
        let mut rng = Rng::new(seed, "multiplication", 0, 0);
        let values: Vec<f32> = (0..SIDE * SIDE).map(|_| rng.normal() as f32).collect();
        Tensor::from_slice(&values).view([SIDE, SIDE])
    };
    let (a, b) = (matrix(0), matrix(1));
    let gpu = Device::Cuda(number);
    let product = bridge::upload(&a, gpu)?.f_matmul(&bridge::upload(&b, gpu)?)?.f_to_device(Device::Cpu)?;
    let expected = a.matmul(&b);
    Ok(((product - &expected).abs().max() / expected.abs().max()).double_value(&[]))
}
