//! Replays steps recorded in f64 by an independent implementation, and finds the largest difference.

use super::{
    collective,
    compute::Compute,
    contrast::Contrast,
    method::{At, Changed, Method},
    methods::{
        adco::AdCo,
        byol::{BYOL, Predictor},
        caco,
        moco_v2::MoCoV2,
        simclr::SimCLR,
        swav::SwAV,
    },
    momentum_contrast::{Constants, MomentumContrast, Rates},
    optimizer::Rule,
    recipe::Recipe,
};
use crate::{
    bridge::Lars,
    model::{
        Bank, Network, Shape, Sizes,
        resnet::{Block, Layout},
    },
    tensors::Tensors,
};
use anyhow::{Context as _, Result, bail, ensure};
use caco_kinds::{Activations, Method as Named, Objective, Precision, Stem};
use serde::Deserialize;
use std::{fs, path::Path};
use tch::{Device, Kind, Tensor};

/// `case.json`: the parts of all cases.
#[derive(Debug, Deserialize)]
struct Case {
    mode: Mode,
    steps: usize,
    #[serde(with = "BlockWord")]
    block: Block,
    layers: Vec<usize>,
    width: i64,
    #[serde(with = "StemWord")]
    stem: Stem,
    hidden: i64,
    dim: i64,
    lr: f64,
}

/// A case of CaCo.
#[derive(Debug, Deserialize)]
struct OfCaCo {
    #[serde(default)]
    objective: Objective,
    momentum: f64,
    weight_decay: f64,
    #[serde(default = "trust")]
    trust: f64,
    tau: f64,
    bank_tau: f64,
    bank_lr: f64,
    bank_momentum: f64,
    key_momentum: f64,
}

/// A case of another method.
#[derive(Debug, Deserialize)]
struct OfMethod {
    method: Named,
    optimizer: OptimizerWord,
    /// The steps in which prototypes are not trained.
    #[serde(default)]
    freeze: Vec<bool>,
}

/// [`Rule`] as spelled in a case.
#[derive(Clone, Copy, Debug, Deserialize)]
enum OptimizerWord {
    Lars { momentum: f64, weight_decay: f64, trust: f64 },
    Sgd { momentum: f64, weight_decay: f64 },
}

fn trust() -> f64 {
    0.001
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Sym,
    Multicrop,
    Warm,
    Method,
}

/// [`Block`] as spelled in a case.
#[derive(Deserialize)]
#[serde(remote = "Block", rename_all = "lowercase")]
enum BlockWord {
    Basic,
    Bottleneck,
}

/// [`Stem`] as spelled in a case.
#[derive(Deserialize)]
#[serde(remote = "Stem", rename_all = "lowercase")]
enum StemWord {
    Cifar,
    Imagenet,
}

/// The largest difference of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    /// max|a − b| / max(1, max|b|); infinite if positives or shapes differ.
    pub distance: f64,
    /// The tensor's name in `expect.safetensors`.
    pub place: String,
}

impl Worst {
    fn compare(&mut self, place: &str, ours: &Tensor, expected: &Tensor) {
        let ours = ours.detach().to_device(expected.device()).to_kind(expected.kind()).reshape(-1);
        let expected = expected.reshape(-1);
        let distance = if ours.numel() != expected.numel() || expected.kind() == Kind::Int64 && ours != expected {
            f64::INFINITY
        } else {
            let largest = |x: Tensor| x.abs().max().double_value(&[]);
            largest(&ours - &expected) / largest(expected).max(1.0)
        };
        if distance.is_nan() || distance > self.distance || self.place.is_empty() {
            *self = Worst { distance, place: place.into() };
        }
    }
}

/// A training that is replayed.
trait Replayed {
    /// Takes step number `step`, and returns tensors by their names in `expect.safetensors`. `None` if there is none.
    fn step(&mut self, step: usize, views: &[Tensor]) -> Result<Option<Vec<(String, Tensor)>>>;
    /// All final tensors, by their names in `expect.safetensors`.
    fn end(&mut self) -> Vec<(String, Tensor)>;
}

/// Replays the case in `folder`: `case.json`, `init.safetensors`, `steps.safetensors`, `expect.safetensors`. Every
/// expected tensor is compared; an error if files are missing or inconsistent. The steps are taken on `device`, on
/// batches in so many `shards`, which several processes divide among them.
pub fn replay(folder: &Path, device: Device, shards: usize) -> Result<Worst> {
    let path = folder.join("case.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let case: Case = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let read = |name: &str| Tensors::read(&folder.join(name));
    let views = read("steps.safetensors")?.tensors;
    let mut expected = read("expect.safetensors")?.tensors;
    let init = read("init.safetensors")?;
    let mut replayed: Box<dyn Replayed> = match case.mode {
        Mode::Method => Box::new(OtherMethod::start(&case, &text, init, device, shards)?),
        _ => Box::new(CaCo::start(&case, &text, init, device, shards)?),
    };
    let mut worst = Worst { distance: 0.0, place: String::new() };
    let mut compare = |tensors: Vec<(String, Tensor)>| {
        for (name, tensor) in tensors {
            if let Some(expected) = expected.remove(&name) {
                worst.compare(&name, &tensor, &expected);
            }
        }
    };
    for step in 0..case.steps {
        let views: Vec<Tensor> = (0..)
            .map_while(|v| {
                views.get(&format!("step{step}.view{v}")).map(|view| collective::here().own(view).to_device(device))
            })
            .collect();
        ensure!(!views.is_empty(), "steps.safetensors has no views for step {step}");
        let Some(tensors) = replayed.step(step, &views)? else { break };
        compare(tensors);
    }
    compare(replayed.end());
    let left: Vec<&String> = expected.keys().collect();
    ensure!(left.is_empty(), "the case expects tensors that do not exist here: {left:?}");
    ensure!(!worst.place.is_empty(), "the case expects nothing");
    Ok(worst)
}

impl Case {
    fn shape(&self) -> Shape {
        let backbone = Layout { block: self.block, depths: self.layers.clone(), width: self.width, stem: self.stem };
        Shape { backbone, head: Some(Sizes { hidden: self.hidden, dim: self.dim }) }
    }

    fn encoder(&self, init: &mut Tensors, device: Device) -> Result<Network> {
        self.shape().load(init.take("encoder_q."), Kind::Double, device).context("init.safetensors")
    }
}

fn compute(shards: usize) -> Compute {
    Compute { precision: Precision::F32, activations: Activations::Keep, accumulate: 1, shards }
}

/// Takes a tensor that a case must have.
fn take(init: &mut Tensors, name: &str, device: Device) -> Result<Tensor> {
    let tensor = init.tensors.remove(name).with_context(|| format!("init.safetensors has no {name}"))?;
    Ok(tensor.to_device(device))
}

struct CaCo {
    state: MomentumContrast,
    constants: Constants,
    rates: Rates,
    is_warm: bool,
    filled: i64,
}

impl CaCo {
    fn start(case: &Case, text: &str, mut init: Tensors, device: Device, shards: usize) -> Result<Self> {
        let of: OfCaCo = serde_json::from_str(text).context("case.json")?;
        let is_warm = case.mode == Mode::Warm;
        // The temperature of the initialisation; `tau` in a case is that of the training after it.
        let temperature = if is_warm { 0.2 } else { of.tau };
        let contrast = Contrast { objective: of.objective, temperature, bank_temperature: of.bank_tau };
        let lars = Lars { momentum: of.momentum, weight_decay: of.weight_decay, trust: of.trust };
        let query = case.encoder(&mut init, device)?;
        let bank = Bank::at_rest(take(&mut init, "bank.W", device)?);
        Ok(CaCo {
            state: MomentumContrast::start(query, bank),
            constants: Constants {
                contrast,
                bank_momentum: of.bank_momentum,
                rule: Rule::Lars(lars),
                compute: compute(shards),
            },
            rates: Rates { encoder: case.lr, bank: of.bank_lr, key_momentum: of.key_momentum },
            is_warm,
            filled: 0,
        })
    }
}

impl Replayed for CaCo {
    fn step(&mut self, step: usize, views: &[Tensor]) -> Result<Option<Vec<(String, Tensor)>>> {
        let CaCo { state, constants, rates, is_warm, filled } = self;
        if *is_warm && *filled >= state.bank.size() {
            return Ok(None);
        }
        let output = match is_warm {
            true => caco::init_step(state, views, constants, *rates, *filled, &mut |_| ())?,
            false => caco::step(state, views, constants, *rates, step as u64, &mut |_| ())?,
        };
        *filled += views[0].size()[0] * collective::here().size() as i64;
        let mut named = vec![
            (format!("step{step}.loss"), output.loss),
            (format!("step{step}.W"), state.bank.columns.copy()),
            (format!("step{step}.v"), state.bank.velocity.copy()),
        ];
        let positives = output.positives.into_iter().enumerate();
        named.extend(positives.map(|(view, positives)| (format!("step{step}.positives{view}"), positives)));
        Ok(Some(named))
    }

    fn end(&mut self) -> Vec<(String, Tensor)> {
        if self.is_warm {
            caco::finish_init(&mut self.state);
        }
        end(self.state.changed())
    }
}

struct OtherMethod {
    method: Box<dyn Method>,
    freeze: Vec<bool>,
}

impl OtherMethod {
    fn start(case: &Case, text: &str, mut init: Tensors, device: Device, shards: usize) -> Result<Self> {
        let of: OfMethod = serde_json::from_str(text).context("case.json")?;
        let rule = match of.optimizer {
            OptimizerWord::Lars { momentum, weight_decay, trust } => Rule::Lars(Lars { momentum, weight_decay, trust }),
            OptimizerWord::Sgd { momentum, weight_decay } => Rule::Sgd { momentum, weight_decay },
        };
        // All rates are constant: that of the encoder falls by a factor of 1, a momentum rises over endless epochs.
        let recipe = Recipe { rule, rate: case.lr, falls: 1.0, warmup: 0, epochs: 1 << 40, compute: compute(shards) };
        let query = case.encoder(&mut init, device)?;
        let bank = |init: &mut Tensors| take(init, "bank.W", device).map(Bank::at_rest);
        let method: Box<dyn Method> = match &of.method {
            Named::CaCo(_) => bail!("a case of CaCo has a mode of its own"),
            Named::MoCoV2(parameters) => {
                let state = MomentumContrast::start(query, bank(&mut init)?);
                Box::new(MoCoV2::new(state, parameters, recipe))
            }
            Named::AdCo(parameters) => {
                let state = MomentumContrast::start(query, bank(&mut init)?);
                Box::new(AdCo::new(state, parameters, recipe))
            }
            Named::SimCLR(parameters) => Box::new(SimCLR::new(query, parameters, recipe)),
            Named::BYOL(parameters) => {
                let named = init.take("predictor.");
                let hidden = named.get("0.weight").context("init.safetensors has no predictor.0.weight")?.size()[0];
                let named = named.into_iter().map(|(name, tensor)| (format!("predictor.{name}"), tensor)).collect();
                let predictor = Predictor::load(named, case.dim, hidden, device)?;
                Box::new(BYOL::new(query, predictor, parameters, recipe))
            }
            Named::SwAV(parameters) => {
                let prototypes = take(&mut init, "prototypes.weight", device)?;
                Box::new(SwAV::new(query, prototypes, parameters, recipe))
            }
        };
        Ok(OtherMethod { method, freeze: of.freeze })
    }
}

impl Replayed for OtherMethod {
    fn step(&mut self, step: usize, views: &[Tensor]) -> Result<Option<Vec<(String, Tensor)>>> {
        // Prototypes are frozen in the first epoch.
        let epoch = u64::from(!self.freeze.get(step).copied().unwrap_or(false));
        let output = self.method.step(views, At { epoch, number: step as u64 }, &mut |_| ())?;
        let mut named = vec![
            (format!("step{step}.loss"), output.loss),
            (format!("step{step}.gradient_norm"), output.gradient_norm),
        ];
        named.extend(self.method.bank().map(|bank| (format!("step{step}.W"), bank.columns.copy())));
        Ok(Some(named))
    }

    fn end(&mut self) -> Vec<(String, Tensor)> {
        end(self.method.changed())
    }
}

/// The final tensors, by their names in `expect.safetensors`.
fn end(changed: Vec<Changed>) -> Vec<(String, Tensor)> {
    let named = |Changed { name, tensor, .. }: Changed| {
        let name = name.replacen("query.", "encoder_q.", 1).replacen("key.", "encoder_k.", 1);
        (format!("final.{name}"), tensor.copy())
    };
    changed.into_iter().map(named).collect()
}
