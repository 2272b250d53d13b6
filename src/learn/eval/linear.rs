//! Linear evaluation: a linear classifier on a frozen encoder, trained on augmented images by SGD with momentum under
//! LARC (layer-wise adaptive rates, You et al. 2017, as in NVIDIA's apex with `clip=False`).

pub use super::stream::Backbone;

use super::stream::{Computed, Stream};
use crate::{bridge, schedule, tensors::Tensors, train::collective};
use anyhow::{Context as _, Result, bail, ensure};
use caco_data::batch::Source;
use caco_measure::rng::Rng;
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// How the classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Passes over the images.
    pub epochs: u64,
    /// Learning rate of the first epoch; it falls to 0 per epoch by a half cosine.
    pub rate: f64,
    /// SGD momentum.
    pub momentum: f64,
    /// LARC trust coefficient.
    pub trust: f64,
    /// Seed of the initial weights.
    pub seed: u64,
}

/// The state of a training, with everything needed to resume it.
#[derive(Debug)]
pub struct State {
    /// Weights [classes, d] and bias [classes], f32.
    parameters: [Tensor; 2],
    momenta: [Tensor; 2],
    /// Epochs done, and steps done in the current one.
    epoch: u64,
    step: u64,
    /// Sum of the losses in the current epoch, and the number of images it covers.
    sum: f64,
    images: u64,
    /// Mean loss of the last complete epoch.
    pub loss: f64,
}

const NAMES: [&str; 2] = ["weight", "bias"];
const MOMENTA: [&str; 2] = ["momentum.weight", "momentum.bias"];

impl State {
    /// Weights N(0, 0.01²), bias 0.
    pub fn start(classes: i64, d: i64, seed: u64, device: Device) -> Self {
        let mut rng = Rng::new(seed, "linear classifier", 0, 0);
        let weights: Vec<f32> = (0..classes * d).map(|_| (0.01 * rng.normal()) as f32).collect();
        let weight = Tensor::from_slice(&weights).view([classes, d]).to_device(device);
        let bias = Tensor::zeros([classes], (Kind::Float, device));
        let momenta = [weight.zeros_like(), bias.zeros_like()];
        State { parameters: [weight, bias], momenta, epoch: 0, step: 0, sum: 0.0, images: 0, loss: f64::NAN }
    }

    /// Features [N, d] → scores [N, classes].
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.matmul(&self.parameters[0].tr()) + &self.parameters[1]
    }

    /// Weights [classes, d] as `weight`, bias [classes] as `bias`.
    pub fn classifier(&self) -> Tensors {
        let mut file = Tensors::default();
        file.extend("", NAMES.into_iter().zip(&self.parameters));
        file
    }

    /// Writes the state for [`State::read`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = self.classifier();
        file.extend("", MOMENTA.into_iter().zip(&self.momenta));
        for (name, value) in [("epoch", self.epoch), ("step", self.step), ("images", self.images)] {
            file.metadata.insert(name.into(), value.to_string());
        }
        // As bits, so that every number, including NaN, is restored exactly.
        for (name, value) in [("sum", self.sum), ("loss", self.loss)] {
            file.metadata.insert(name.into(), value.to_bits().to_string());
        }
        file.write(path)
    }

    /// Reads a file written by [`State::write`]. Errors name the file and what is missing or does not match.
    pub fn read(path: &Path, classes: i64, d: i64, device: Device) -> Result<Self> {
        let mut file = Tensors::read(path)?;
        let mut read = || -> Result<Self> {
            let mut tensors = |names: [&str; 2]| -> Result<[Tensor; 2]> {
                let [weight, bias] = names.map(|name| file.tensors.remove(name));
                let (weight, bias) = weight.zip(bias).with_context(|| format!("it lacks one of {names:?}"))?;
                let fits = weight.size() == [classes, d] && bias.size() == [classes];
                ensure!(fits, "{names:?} are of shapes {:?} and {:?}", weight.size(), bias.size());
                Ok([weight.to_device(device), bias.to_device(device)])
            };
            let (parameters, momenta) = (tensors(NAMES)?, tensors(MOMENTA)?);
            let number = |name: &str| -> Result<u64> {
                let text = file.metadata.get(name).with_context(|| format!("its metadata lacks '{name}'"))?;
                text.parse().with_context(|| format!("its '{name}'"))
            };
            let (sum, loss) = (f64::from_bits(number("sum")?), f64::from_bits(number("loss")?));
            let (epoch, step, images) = (number("epoch")?, number("step")?, number("images")?);
            Ok(State { parameters, momenta, epoch, step, sum, images, loss })
        };
        read().with_context(|| format!("{} is not a checkpoint of this evaluation", path.display()))
    }

    /// One step on features [N, d] with labels [N]; returns the mean cross entropy before the step, on the device.
    fn learn(&mut self, features: &Tensor, labels: &Tensor, training: &Training, rate: f64) -> Tensor {
        let logarithms = self.scores(features).log_softmax(1, Kind::Float);
        let target = labels.unsqueeze(1);
        let loss = -logarithms.gather(1, &target, false).mean(Kind::Float);
        let ones = Tensor::full_like(&target, -1.0).to_kind(Kind::Float);
        let errors = logarithms.exp().scatter_add(1, &target, &ones) / labels.size()[0] as f64;
        let gradients = [errors.tr().matmul(features), errors.sum_dim_intlist(0, false, Kind::Float)];
        for ((parameter, momentum), gradient) in self.parameters.iter_mut().zip(&mut self.momenta).zip(gradients) {
            let scaled = &gradient * larc(parameter, &gradient, training.trust);
            *momentum *= training.momentum;
            *momentum += scaled;
            *parameter -= &*momentum * rate;
        }
        loss
    }
}

/// The factor by which LARC scales a gradient: trust · ‖p‖ / (‖g‖ + 1e-8), without weight decay and clipping; 1 if
/// either norm is 0.
fn larc(parameter: &Tensor, gradient: &Tensor, trust: f64) -> Tensor {
    let (p, g) = (parameter.norm(), gradient.norm());
    let factor = &p * trust / (&g + 1e-8);
    factor.where_self(&p.not_equal(0.0).logical_and(&g.not_equal(0.0)), &p.ones_like())
}

/// Observes the training and may stop it.
pub trait Watch {
    /// Called with the steps done, the total, and the mean loss of the last complete epoch (NaN before the first).
    /// Returning false stops the training.
    fn step(&mut self, done: u64, total: u64, loss: f64) -> bool;
    /// Called after an epoch and before a stop, to save the state.
    fn keep(&mut self, state: &State) -> Result<()>;
}

/// Trains from `state` to the end; returns false if `watch` stopped it. The result has the same bytes however often
/// training is stopped, and however many processes compute it. `source` yields one view per image, different in each
/// epoch, and includes the last incomplete batch.
pub fn train(
    backbone: Backbone,
    source: &dyn Source,
    training: &Training,
    state: &mut State,
    watch: &mut dyn Watch,
) -> Result<bool> {
    let _guard = tch::no_grad_guard();
    collective::here().ensure_together(state.epoch * source.batches() + state.step)?;
    while state.epoch < training.epochs {
        let stopped = epoch(backbone, source, training, state, watch)?;
        watch.keep(state)?;
        if stopped && state.epoch < training.epochs {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Trains for the rest of an epoch; returns true if stopped.
fn epoch(
    backbone: Backbone,
    source: &dyn Source,
    training: &Training,
    state: &mut State,
    watch: &mut dyn Watch,
) -> Result<bool> {
    let steps = source.batches();
    let rate = schedule::warm_cosine(training.rate, 0.0, 0, training.epochs, state.epoch);
    // Kept on the device, because reading it at each step would wait for the device.
    let mut sum = Tensor::from(state.sum).to_device(backbone.device);
    let mut stopped = false;
    let mut batches = Stream::new(backbone, source, state.epoch, state.step)?;
    while let Some(Computed { labels, features }) = batches.next().transpose()? {
        let images = labels.len();
        let labels = bridge::upload(&Tensor::from_slice(&labels), backbone.device)?;
        let loss = state.learn(&features, &labels, training, rate);
        sum += loss.to_kind(Kind::Double) * images as f64;
        state.images += images as u64;
        state.step += 1;
        batches.look_ahead();
        let continues = watch.step(state.epoch * steps + state.step, steps * training.epochs, state.loss);
        stopped = collective::here().any(!continues)?;
        if stopped {
            break;
        }
    }
    state.sum = sum.double_value(&[]);
    ensure!(state.sum.is_finite(), "the loss is not finite in epoch {}", state.epoch);
    if state.step == steps {
        state.loss = state.sum / state.images as f64;
        (state.epoch, state.step, state.sum, state.images) = (state.epoch + 1, 0, 0.0, 0);
    } else {
        ensure!(stopped, "epoch {} ended after {} of {steps} batches", state.epoch, state.step);
    }
    Ok(stopped)
}

/// Labels and the `width` likeliest classes of each image of `source`, the likeliest first; the lower class first if
/// scores are equal. `width` must not exceed the number of classes. Returns `None` if `keep_going`, called with the
/// number of images done, returns false.
pub fn answer(
    backbone: Backbone,
    state: &State,
    source: &dyn Source,
    width: i64,
    keep_going: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<(Vec<i64>, Vec<i64>)>> {
    let (mut labels, mut answers) = (Vec::new(), Vec::new());
    let mut batches = Stream::new(backbone, source, 0, 0)?;
    while let Some(batch) = batches.next().transpose()? {
        let scores = no_grad(|| state.scores(&batch.features));
        batches.look_ahead();
        answers.extend(likeliest(&scores, width)?);
        labels.extend(batch.labels);
        if collective::here().any(!keep_going(labels.len() as u64))? {
            return Ok(None);
        }
    }
    Ok(Some((labels, answers)))
}

/// The classes of the `width` highest scores in each row of [N, classes], row by row; the lower class first if scores
/// are equal.
pub fn likeliest(scores: &Tensor, width: i64) -> Result<Vec<i64>> {
    if scores.isfinite().all().int64_value(&[]) == 0 {
        bail!("the classifier's scores are not finite");
    }
    let (_, order) = scores.sort_stable(true, 1, true);
    Ok(Vec::try_from(order.narrow(1, 0, width).contiguous().view(-1))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        eval::sketch::{self, Drawn},
        model::Encoder,
    };
    use caco_kinds::Precision;
    use std::path::PathBuf;

    const TRAINING: Training = Training { epochs: 3, rate: 0.5, momentum: 0.9, trust: 0.05, seed: 5 };

    fn drawn(images: usize, seed: u64) -> Drawn {
        Drawn { images, classes: 4, batch: 8, size: 16, seed }
    }

    /// Stops after some steps, and saves states to a file.
    struct Stopping {
        path: PathBuf,
        left: u64,
        kept: u64,
    }

    impl Watch for Stopping {
        fn step(&mut self, _: u64, total: u64, _: f64) -> bool {
            assert_eq!(total % 4, 0);
            self.left -= 1;
            self.left > 0
        }
        fn keep(&mut self, state: &State) -> Result<()> {
            self.kept += 1;
            state.write(&self.path)
        }
    }

    fn trained(encoder: &Encoder, stops: &[u64], folder: &Path) -> Vec<u8> {
        let backbone = Backbone { encoder, precision: Precision::F32, device: Device::Cpu };
        let path = folder.join("state.safetensors");
        let d = encoder.network.features();
        let mut state = State::start(4, d, TRAINING.seed, Device::Cpu);
        for &left in stops {
            let mut watch = Stopping { path: path.clone(), left, kept: 0 };
            assert!(!train(backbone, &drawn(29, 1), &TRAINING, &mut state, &mut watch).unwrap());
            assert!(watch.kept >= 1);
            state = State::read(&path, 4, d, Device::Cpu).unwrap();
        }
        let mut watch = Stopping { path: path.clone(), left: u64::MAX, kept: 0 };
        assert!(train(backbone, &drawn(29, 1), &TRAINING, &mut state, &mut watch).unwrap());
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_stopped_training_ends_in_the_same_bytes() {
        let encoder = sketch::encoder();
        let folder = tempfile::tempdir().unwrap();
        let whole = trained(&encoder, &[], folder.path());
        // In the middle of an epoch, at its end (four batches), and twice in a row.
        for stops in [vec![2], vec![4], vec![3, 1, 6]] {
            assert!(whole == trained(&encoder, &stops, folder.path()), "{stops:?}");
        }
    }

    #[test]
    fn training_leaves_the_backbone_bit_identical() {
        let encoder = sketch::encoder();
        let bits = |encoder: &Encoder| -> Vec<(String, Vec<u8>)> {
            let named = encoder.network.weights().named();
            named
                .map(|(name, tensor)| {
                    let flat = tensor.contiguous().view(-1);
                    let mut bytes = vec![0; flat.numel() * flat.kind().elt_size_in_bytes()];
                    flat.view_dtype(Kind::Uint8)
                        .copy_data_u8(&mut bytes, flat.numel() * flat.kind().elt_size_in_bytes());
                    (name.to_string(), bytes)
                })
                .collect()
        };
        let before = bits(&encoder);
        assert!(before.iter().any(|(name, _)| name.ends_with("running_mean")));
        let folder = tempfile::tempdir().unwrap();
        trained(&encoder, &[], folder.path());
        assert!(before == bits(&encoder));
    }

    #[test]
    fn colours_are_learned_and_predicted() {
        let encoder = sketch::encoder();
        let backbone = Backbone { encoder: &encoder, precision: Precision::F32, device: Device::Cpu };
        let mut state = State::start(4, encoder.network.features(), 0, Device::Cpu);
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Stopping { path: folder.path().join("state"), left: u64::MAX, kept: 0 };
        let training = Training { epochs: 40, rate: 1.0, trust: 0.02, ..TRAINING };
        train(backbone, &drawn(29, 1), &training, &mut state, &mut watch).unwrap();
        assert!(state.loss < 4f64.ln(), "{}", state.loss);
        let (labels, answers) = answer(backbone, &state, &drawn(40, 9), 2, &mut |_| true).unwrap().unwrap();
        assert_eq!(labels, drawn(40, 9).labels());
        let right = labels.iter().zip(answers.chunks(2)).filter(|(label, answer)| answer[0] == **label).count();
        assert!(right >= 36, "{right} of 40");
        assert!(answer(backbone, &state, &drawn(40, 9), 2, &mut |done| done < 16).unwrap().is_none());
    }

    #[test]
    fn two_steps_match_autograd() {
        let double = (Kind::Double, Device::Cpu);
        let features = Tensor::linspace(-1.0, 2.0, 15, double).view([5, 3]).sin();
        let labels = Tensor::from_slice(&[0i64, 3, 1, 1, 2]);
        let mut state = State::start(4, 3, 1, Device::Cpu);
        let mut ours: Vec<Tensor> = state.parameters.iter().map(|p| p.to_kind(Kind::Double)).collect();
        let mut momenta: Vec<Tensor> = ours.iter().map(Tensor::zeros_like).collect();
        for rate in [0.4, 0.3] {
            let leaves: Vec<Tensor> = ours.iter().map(|p| p.copy().set_requires_grad(true)).collect();
            let loss = (features.matmul(&leaves[0].tr()) + &leaves[1]).cross_entropy_for_logits(&labels);
            let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
            for ((p, m), g) in ours.iter_mut().zip(&mut momenta).zip(gradients) {
                let (length, slope) = (p.norm().double_value(&[]), g.norm().double_value(&[]));
                let factor = if length > 0.0 { 0.01 * length / (slope + 1e-8) } else { 1.0 };
                *m = &*m * 0.9 + g * factor;
                *p -= &*m * rate;
            }
            let training = Training { trust: 0.01, ..TRAINING };
            let reported = state.learn(&features.to_kind(Kind::Float), &labels, &training, rate).double_value(&[]);
            assert!((reported - loss.double_value(&[])).abs() < 1e-6);
        }
        for (theirs, ours) in state.parameters.iter().zip(&ours) {
            assert!((theirs - ours).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn larc_scales_by_the_ratio_of_lengths() {
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let factor = |p: &[f32], g: &[f32]| larc(&tensor(p), &tensor(g), 0.001).double_value(&[]);
        assert!((factor(&[3.0, 4.0], &[0.0, 2.0]) - 0.0025).abs() < 1e-9);
        assert_eq!(factor(&[0.0, 0.0], &[1.0, 2.0]), 1.0);
        assert_eq!(factor(&[1.0, 2.0], &[0.0, 0.0]), 1.0);
    }

    #[test]
    fn equal_scores_go_to_the_lower_class() {
        let scores = Tensor::from_slice(&[1.0f32, 3.0, 3.0, 0.0, 0.0, 0.0]).view([2, 3]);
        assert_eq!(likeliest(&scores, 2).unwrap(), [1, 2, 0, 1]);
        assert!(likeliest(&(scores * f64::NAN), 1).is_err());
    }
}
