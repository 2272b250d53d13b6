//! Replays steps recorded in f64 by an independent implementation, and finds the largest difference.

use super::{
    compute::Compute,
    contrast::Contrast,
    method::{Changed, StepOutput},
    methods::caco,
    momentum_contrast::{Constants, MomentumContrast, Rates},
    optimizer::Rule,
};
use crate::{
    bridge::Lars,
    model::{
        Bank, Shape, Sizes,
        resnet::{Block, Layout},
    },
    tensors::Tensors,
};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Activations, Objective, Precision, Stem};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::Path};
use tch::{Device, Kind, Tensor};

/// `case.json`.
#[derive(Debug, Deserialize)]
struct Case {
    mode: Mode,
    #[serde(default)]
    objective: Objective,
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

fn trust() -> f64 {
    0.001
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Sym,
    Multicrop,
    Warm,
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

/// Replays the case in `folder`: `case.json`, `init.safetensors`, `steps.safetensors`, `expect.safetensors`. Every
/// expected tensor is compared; an error if files are missing or inconsistent. The steps are taken on `device`, on
/// batches in so many `shards`.
pub fn replay(folder: &Path, device: Device, shards: usize) -> Result<Worst> {
    let text = fs::read_to_string(folder.join("case.json"))
        .with_context(|| format!("cannot read case.json in {}", folder.display()))?;
    let case: Case = serde_json::from_str(&text).with_context(|| format!("{}/case.json", folder.display()))?;
    let read = |name: &str| Tensors::read(&folder.join(name));
    let steps = read("steps.safetensors")?.tensors;
    let mut expected = read("expect.safetensors")?.tensors;
    let mut state = case.start(read("init.safetensors")?, device)?;
    let mut worst = Worst { distance: 0.0, place: String::new() };
    let mut filled = 0;
    for step in 0..case.steps {
        if case.mode == Mode::Warm && filled >= state.bank.size() {
            break;
        }
        let views: Vec<Tensor> =
            (0..).map_while(|v| steps.get(&format!("step{step}.view{v}")).map(|view| view.to_device(device))).collect();
        ensure!(!views.is_empty(), "steps.safetensors has no views for step {step}");
        let output = case.step(&mut state, &views, shards, step, filled)?;
        filled += views[0].size()[0];
        for (name, tensor) in tensors_of(step, &output, &state) {
            if let Some(expected) = expected.remove(&name) {
                worst.compare(&name, &tensor, &expected);
            }
        }
    }
    for (name, tensor) in case.end(state) {
        if let Some(expected) = expected.remove(&name) {
            worst.compare(&name, &tensor, &expected);
        }
    }
    let left: Vec<&String> = expected.keys().collect();
    ensure!(left.is_empty(), "the case expects tensors that do not exist here: {left:?}");
    ensure!(!worst.place.is_empty(), "the case expects nothing");
    Ok(worst)
}

fn tensors_of(step: usize, output: &StepOutput, state: &MomentumContrast) -> Vec<(String, Tensor)> {
    let mut named = vec![
        (format!("step{step}.loss"), output.loss.shallow_clone()),
        (format!("step{step}.W"), state.bank.columns.shallow_clone()),
        (format!("step{step}.v"), state.bank.velocity.shallow_clone()),
    ];
    named.extend(
        output.positives.iter().enumerate().map(|(v, j)| (format!("step{step}.positives{v}"), j.shallow_clone())),
    );
    named
}

impl Case {
    fn start(&self, mut init: Tensors, device: Device) -> Result<MomentumContrast> {
        let backbone = Layout { block: self.block, depths: self.layers.clone(), width: self.width, stem: self.stem };
        let shape = Shape { backbone, head: Some(Sizes { hidden: self.hidden, dim: self.dim }) };
        let query = shape.load(init.take("encoder_q."), Kind::Double, device).context("init.safetensors")?;
        let columns = init.tensors.remove("bank.W").context("init.safetensors has no bank.W")?.to_device(device);
        Ok(MomentumContrast::start(query, Bank::at_rest(columns)))
    }

    fn step(
        &self,
        state: &mut MomentumContrast,
        views: &[Tensor],
        shards: usize,
        step: usize,
        filled: i64,
    ) -> Result<StepOutput> {
        let contrast = Contrast { objective: self.objective, temperature: self.tau, bank_temperature: self.bank_tau };
        let lars = Lars { momentum: self.momentum, weight_decay: self.weight_decay, trust: self.trust };
        let mut constants = Constants {
            contrast,
            bank_momentum: self.bank_momentum,
            rule: Rule::Lars(lars),
            compute: Compute { precision: Precision::F32, activations: Activations::Keep, accumulate: 1, shards },
        };
        let rates = Rates { encoder: self.lr, bank: self.bank_lr, key_momentum: self.key_momentum };
        if self.mode == Mode::Warm {
            // The temperature of the initialisation; `tau` in a case is that of the training after it.
            constants.contrast.temperature = 0.2;
            return caco::init_step(state, views, &constants, rates, filled, &mut |_| ());
        }
        caco::step(state, views, &constants, rates, step as u64, &mut |_| ())
    }

    /// All final tensors, by their names in `expect.safetensors`.
    fn end(&self, mut state: MomentumContrast) -> BTreeMap<String, Tensor> {
        if self.mode == Mode::Warm {
            caco::finish_init(&mut state);
        }
        let mut end = Tensors::default();
        end.extend("final.encoder_q.", state.query.weights().named());
        end.extend("final.encoder_k.", state.key.weights().named());
        for Changed { name, tensor, .. } in
            state.changed().iter().filter(|changed| changed.name.starts_with("momentum."))
        {
            end.insert(format!("final.{name}"), tensor);
        }
        end.tensors
    }
}
