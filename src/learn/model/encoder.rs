//! Saves and loads a trained network.

use super::{
    network::{Network, Shape},
    pixels::{MEAN, STD},
    shards::Shards,
};
use crate::{portable, tensors::Tensors};
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Model, Precision};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// A network and its description.
#[derive(Debug)]
pub struct Encoder {
    /// The description of the network.
    pub model: Model,
    /// The network, f32.
    pub network: Network,
}

/// Images that pass through the network together if results must be portable: blocks run side by side.
const BLOCK: i64 = 16;

impl Encoder {
    /// An encoder with initial values drawn from `seed`.
    pub fn draw(model: &Model, seed: u64, device: Device) -> Self {
        Encoder { model: model.clone(), network: Shape::from(model).draw(seed, Kind::Float, device) }
    }

    /// Reads a file written by [`Encoder::save`]. An error if the file does not describe its model, if tensors are
    /// missing, unexpected or misshaped, or if its images were normalised differently.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let file = Tensors::read(path)?;
        let load = || -> Result<Self> {
            let said = |key: &str| {
                let lacks = || {
                    format!(
                        "its metadata lacks '{key}', so it is not an encoder written by caco; other people's weights, and exported \
                         ones, come in by a stage of kind `import_weights`"
                    )
                };
                file.metadata.get(key).with_context(lacks)
            };
            let model: Model = serde_json::from_str(said("model")?).context("its metadata's 'model' is not one")?;
            for (key, ours) in [("mean", MEAN), ("std", STD)] {
                let theirs: [f64; 3] = serde_json::from_str(said(key)?).with_context(|| format!("its '{key}'"))?;
                ensure!(theirs == ours, "its images were normalised with {key} {theirs:?}, caco uses {ours:?}");
            }
            let network = Shape::from(&model).load(file.tensors, Kind::Float, device)?;
            Ok(Encoder { model, network })
        };
        load().with_context(|| format!("{} is not a matching encoder", path.display()))
    }

    /// Writes all tensors, including the head, as safetensors. The metadata holds the model (JSON), and the mean and
    /// standard deviation with which its images are normalised.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = Tensors::default();
        file.extend("", self.network.weights().named());
        file.metadata.insert("model".into(), serde_json::to_string(&self.model)?);
        file.metadata.insert("mean".into(), serde_json::to_string(&MEAN)?);
        file.metadata.insert("std".into(), serde_json::to_string(&STD)?);
        file.write(path)
    }

    /// Normalised images [N, 3, H, W] → pooled last-layer features [N, d], f32, with running statistics and without
    /// gradients.
    pub fn features(&self, images: &Tensor, precision: Precision) -> Tensor {
        let images = match portable::on() {
            true => Shards::blocks(images, BLOCK),
            false => Shards::of(vec![images.shallow_clone()], 1),
        };
        let features = no_grad(|| self.network.pass(precision, false).features(&images));
        features.join().remove(0).to_kind(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caco_kinds::{Arch, Stem};

    fn small(arch: Arch) -> Model {
        Model { arch, width: 4, stem: Stem::Imagenet, hidden: 8, dim: 6 }
    }

    fn change(path: &Path, change: impl FnOnce(&mut Tensors)) -> String {
        let mut file = Tensors::read(path).unwrap();
        change(&mut file);
        file.write(path).unwrap();
        format!("{:#}", Encoder::load(path, Device::Cpu).unwrap_err())
    }

    #[test]
    fn a_saved_encoder_gives_the_same_features() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        for (arch, features) in [(Arch::ResNet18, 32), (Arch::ResNet50, 128)] {
            let encoder = Encoder::draw(&small(arch), 3, Device::Cpu);
            encoder.save(&path).unwrap();
            let images = Tensor::linspace(-1.0, 1.0, 2 * 3 * 32 * 32, (Kind::Float, Device::Cpu)).view([2, 3, 32, 32]);
            let [ours, theirs] = [encoder, Encoder::load(&path, Device::Cpu).unwrap()]
                .map(|encoder| encoder.features(&images, Precision::F32));
            assert_eq!(ours.size(), [2, features]);
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn names_are_torchvisions() {
        let encoder = Encoder::draw(&small(Arch::ResNet50), 0, Device::Cpu);
        let names: Vec<&str> = encoder.network.weights().named().map(|(name, _)| name).collect();
        assert_eq!(names[..4], ["conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean"]);
        for name in ["layer1.0.conv3.weight", "layer1.0.downsample.1.running_var", "layer4.2.bn3.bias", "fc.6.weight"] {
            assert!(names.contains(&name), "{name}");
        }
        // 53 convolutions and batch norms of five tensors each, and the head's three linear layers and two norms.
        assert_eq!(names.len(), 53 * 5 + 3 + 2 * 4);
    }

    #[test]
    fn mismatching_tensors_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        let save = || Encoder::draw(&small(Arch::ResNet18), 0, Device::Cpu).save(&path).unwrap();
        save();
        let missing = change(&path, |f| drop(f.tensors.remove("layer1.0.bn1.bias")));
        assert!(missing.contains("'layer1.0.bn1.bias' is missing"), "{missing}");
        save();
        let more = change(&path, |f| f.insert("fc.8.weight", &Tensor::from(1.0)));
        assert!(more.contains("'fc.8.weight' is not part"), "{more}");
        save();
        let shape = change(&path, |f| f.insert("fc.6.weight", &Tensor::zeros([3, 8], (Kind::Float, Device::Cpu))));
        assert!(shape.contains("'fc.6.weight' has shape [3, 8], the network's is [6, 8]"), "{shape}");
        save();
        let unnormalised = change(&path, |f| drop(f.metadata.insert("mean".into(), "[0.0,0.0,0.0]".into())));
        assert!(unnormalised.contains("mean [0.0, 0.0, 0.0]"), "{unnormalised}");
    }

    #[test]
    fn initial_values_have_the_expected_spread() {
        let model = Model { arch: Arch::ResNet18, width: 16, stem: Stem::Cifar, hidden: 256, dim: 64 };
        let encoder = Encoder::draw(&model, 1, Device::Cpu);
        let named: std::collections::BTreeMap<_, _> = encoder.network.weights().named().collect();
        let spread = |name: &str| named[name].std(false).double_value(&[]);
        let kaiming = (2.0 / (128.0 * 9.0f64)).sqrt();
        assert!((spread("layer4.1.conv2.weight") / kaiming - 1.0).abs() < 0.02);
        let uniform = 1.0 / (3.0 * 256.0f64).sqrt();
        assert!((spread("fc.3.weight") / uniform - 1.0).abs() < 0.02);
        assert!(named["fc.3.weight"].abs().max().double_value(&[]) <= 1.0 / 16.0);
    }
}
