//! The tensors of a network, by name and in a fixed order: parameters first to last, then buffers.

use anyhow::{Result, bail};
use caco_measure::rng::Rng;
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use tch::{Device, Kind, Tensor, no_grad};

/// The position of a tensor in [`Weights`].
#[derive(Clone, Copy, Debug)]
pub struct Slot(usize);

/// The tensors that a part of a network declared; they are contiguous.
#[derive(Clone, Debug)]
pub struct Span(Range<usize>);

/// How a tensor is initialised.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Normal with variance 2 / fan-out (He et al. 2015, for ReLU); the shape is [out, in, height, width].
    KaimingNormal,
    /// Uniform in ±1/√fan-in, PyTorch's default for linear layers; the shape is [out, in].
    LinearUniform,
    /// Ones.
    One,
    /// Zeros.
    Zero,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    shape: Vec<i64>,
    start: Start,
    buffer: bool,
}

/// Declares the tensors of a network before they exist. Layers declare theirs here and keep the slots.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    entries: Vec<Entry>,
}

impl Declaration {
    /// Declares a parameter.
    pub fn parameter(&mut self, name: String, shape: &[i64], start: Start) -> Slot {
        self.declare(name, shape, start, false)
    }

    /// Declares a buffer: saved with the parameters, but neither trained nor averaged.
    pub fn buffer(&mut self, name: String, shape: &[i64], start: Start) -> Slot {
        self.declare(name, shape, start, true)
    }

    /// Runs `declare` and returns its result with the tensors that it declared.
    pub fn span<Part>(&mut self, declare: impl FnOnce(&mut Self) -> Part) -> (Part, Span) {
        let start = self.entries.len();
        let part = declare(self);
        (part, Span(start..self.entries.len()))
    }

    fn declare(&mut self, name: String, shape: &[i64], start: Start, buffer: bool) -> Slot {
        self.entries.push(Entry { name, shape: shape.into(), start, buffer });
        Slot(self.entries.len() - 1)
    }

    /// The declared tensors with their initial values. Each is drawn from `seed` and its own number, on the CPU, so
    /// that device and order do not matter. Four-dimensional tensors are channels-last.
    pub fn draw(&self, seed: u64, kind: Kind, device: Device) -> Weights {
        self.draw_for("weights", seed, kind, device)
    }

    /// The same, drawn for another purpose: two networks of one training must not share draws.
    pub fn draw_for(&self, purpose: &str, seed: u64, kind: Kind, device: Device) -> Weights {
        self.build(kind, device, |i, entry| entry.draw(&mut Rng::new(seed, purpose, 0, i as u64)))
    }

    /// Loads the declared tensors from `named`. Missing, unexpected and misshaped ones are an error that names them
    /// all.
    pub fn load(&self, mut named: BTreeMap<String, Tensor>, kind: Kind, device: Device) -> Result<Weights> {
        let mut faults = Vec::new();
        for Entry { name, shape, .. } in &self.entries {
            match named.get(name) {
                None => faults.push(format!("'{name}' is missing")),
                Some(t) if t.size() != *shape => {
                    faults.push(format!("'{name}' has shape {:?}, the network's is {shape:?}", t.size()));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::BTreeSet<&String> = self.entries.iter().map(|e| &e.name).collect();
        faults.extend(named.keys().filter(|k| !known.contains(k)).map(|k| format!("'{k}' is not part of the network")));
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(8);
            faults.truncate(8);
            let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
            bail!("the tensors do not match the network: {}{rest}", faults.join("; "));
        }
        Ok(self.build(kind, device, |_, entry| named.remove(&entry.name).expect("checked above")))
    }

    fn build(&self, kind: Kind, device: Device, mut value: impl FnMut(usize, &Entry) -> Tensor) -> Weights {
        let tensor = |(i, entry): (usize, &Entry)| channels_last(&value(i, entry).to_device(device).to_kind(kind));
        let tensors = self.entries.iter().enumerate().map(tensor).collect();
        Weights { declaration: Arc::new(self.clone()), tensors }
    }
}

impl Entry {
    /// The initial values, f64 on the CPU.
    fn draw(&self, rng: &mut Rng) -> Tensor {
        let count: i64 = self.shape.iter().product();
        let (out, inside) = (self.shape[0], count / self.shape[0].max(1));
        let values: Vec<f64> = match self.start {
            Start::KaimingNormal => {
                let fan_out = out * self.shape[2] * self.shape[3];
                let deviation = (2.0 / fan_out as f64).sqrt();
                (0..count).map(|_| deviation * rng.normal()).collect()
            }
            Start::LinearUniform => {
                let bound = 1.0 / (inside as f64).sqrt();
                (0..count).map(|_| rng.range(-bound, bound)).collect()
            }
            Start::One => vec![1.0; count as usize],
            Start::Zero => vec![0.0; count as usize],
        };
        Tensor::from_slice(&values).view(self.shape.as_slice())
    }
}

/// Copies `x` such that a tensor [N, C, H, W] is stored as N, H, W, C.
pub fn channels_last(x: &Tensor) -> Tensor {
    match x.dim() {
        // `contiguous` does not copy if one of the dimensions is 1, which would leave the strides ambiguous.
        4 => x.permute([0, 2, 3, 1]).copy().contiguous().permute([0, 3, 1, 2]),
        _ => x.copy(),
    }
}

/// The tensors of one network.
#[derive(Debug)]
pub struct Weights {
    declaration: Arc<Declaration>,
    tensors: Vec<Tensor>,
}

impl Weights {
    /// The tensor in `slot`.
    pub fn get(&self, slot: Slot) -> &Tensor {
        &self.tensors[slot.0]
    }

    /// Every tensor with its name, in the fixed order.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.declaration.entries.iter().map(|e| e.name.as_str()).zip(&self.tensors)
    }

    /// Every tensor with its name, and whether it is a parameter, in the fixed order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Tensor, bool)> {
        self.declaration.entries.iter().zip(&self.tensors).map(|(e, t)| (e.name.as_str(), t, !e.buffer))
    }

    /// The parameters with their names, in the fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.declaration.entries.iter().zip(&self.tensors).filter(|(e, _)| !e.buffer).map(|(e, t)| (e.name.as_str(), t))
    }

    /// The parameters of a span, in the fixed order.
    pub fn parameters_of(&self, span: &Span) -> Vec<Tensor> {
        let entries = &self.declaration.entries;
        span.0.clone().filter(|i| !entries[*i].buffer).map(|i| self.tensors[i].shallow_clone()).collect()
    }

    /// The same tensors, except that the parameters of a span are replaced by `parameters`, and, if `spare`, its
    /// buffers by copies, so that updating them does not change these.
    pub fn with(&self, span: &Span, parameters: &[Tensor], spare: bool) -> Self {
        let mut parameters = parameters.iter();
        let replaced = |i: usize| match self.declaration.entries[i].buffer {
            true if spare => self.tensors[i].copy(),
            true => self.tensors[i].shallow_clone(),
            false => parameters.next().expect("one for each").shallow_clone(),
        };
        let mut all = self.share();
        all.tensors.splice(span.0.clone(), span.0.clone().map(replaced).collect::<Vec<_>>());
        all
    }

    /// Sets whether autograd tracks the parameters.
    pub fn trainable(self, yes: bool) -> Self {
        let of = |(entry, tensor): (&Entry, &Tensor)| tensor.set_requires_grad(yes && !entry.buffer);
        let tensors = self.declaration.entries.iter().zip(&self.tensors).map(of).collect();
        Weights { tensors, ..self }
    }

    /// A copy of all values that shares nothing and is not tracked by autograd.
    pub fn duplicate(&self) -> Self {
        let tensors = self.tensors.iter().map(|t| channels_last(&t.detach())).collect();
        Weights { declaration: self.declaration.clone(), tensors }
    }

    /// A second handle to the same tensors.
    pub fn share(&self) -> Self {
        let tensors = self.tensors.iter().map(Tensor::shallow_clone).collect();
        Weights { declaration: self.declaration.clone(), tensors }
    }

    /// The weights for a pass of type `kind`: convolutions and linear layers are cast, batch norm is unchanged. The
    /// cast is tracked by autograd, so a parameter receives one gradient, summed over all its uses.
    pub fn lowered(&self, kind: Kind) -> Self {
        let lower = |t: &Tensor| if t.dim() > 1 { t.to_kind(kind) } else { t.shallow_clone() };
        Weights { declaration: self.declaration.clone(), tensors: self.tensors.iter().map(lower).collect() }
    }

    /// Sets the parameters to `other`'s; buffers stay.
    pub fn copy_parameters(&mut self, other: &Self) {
        no_grad(|| {
            for (i, entry) in self.declaration.entries.iter().enumerate() {
                if !entry.buffer {
                    self.tensors[i].copy_(&other.tensors[i]);
                }
            }
        });
    }
}
