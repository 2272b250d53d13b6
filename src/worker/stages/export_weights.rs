//! Kind `export_weights`: an encoder as files that PyTorch libraries can load, with a model card.

use crate::task::Task;
use anyhow::{Context as _, Result, ensure};
use caco_kinds::{Determinism, ExportWeights};
use caco_learn::{
    device,
    model::{
        Encoder,
        pixels::{MEAN, STD},
    },
    tensors::Tensors,
};
use caco_measure::metric;
use caco_measure::predictions::Predictions;
use caco_report::card::{Architecture, Card, Figure, Images, Part};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::Device;

/// Prefix of the head's tensor names.
const HEAD: &str = "fc.";

/// Writes `backbone.safetensors`, `card.json` and `card.md`, and on request `head.safetensors` and `bank.safetensors`.
pub fn run(task: &Task) -> Result<()> {
    let parameters: ExportWeights = task.parameters()?;
    device::open("cpu", task.threads, Determinism::Fast)?;
    let source = task.input("encoder")?;
    let encoder = Encoder::load(source, Device::Cpu)?;
    let model = &encoder.model;
    let mut files = BTreeMap::new();
    let (head, backbone): (Vec<_>, Vec<_>) =
        encoder.network.weights().named().partition(|(name, _)| name.starts_with(HEAD));
    let mut write = |name: &str, tensors: Vec<(&str, &tch::Tensor)>| -> Result<()> {
        let mut file = Tensors::default();
        file.extend("", tensors);
        file.metadata.insert("format".into(), "pt".into());
        let path = task.output(name);
        file.write(&path)?;
        files.insert(name.to_string(), part(&path)?);
        Ok(())
    };
    write("backbone.safetensors", backbone)?;
    if parameters.head {
        ensure!(model.has_head(), "{} has no head; give `head: false`", source.display());
        write("head.safetensors", head)?;
    }
    if parameters.bank.is_some() {
        let bank = Tensors::read(task.input("bank")?)?;
        write("bank.safetensors", bank.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect())?;
    }
    let backbone = encoder.network.weights().parameters().filter(|(name, _)| !name.starts_with(HEAD));
    let card = Card {
        key: task.key()?.into(),
        encoder: digest(source)?,
        architecture: Architecture {
            model: model.clone(),
            features: encoder.network.features() as u64,
            parameters: backbone.map(|(_, tensor)| tensor.numel() as u64).sum(),
        },
        images: Images { mean: MEAN, std: STD },
        files,
        figures: figures(task, parameters.results.len())?,
    };
    save(&task.output("card.json"), serde_json::to_string_pretty(&card)? + "\n")?;
    save(&task.output("card.md"), card.markdown())?;
    task.metrics(&[])
}

/// The metrics of all results.
fn figures(task: &Task, results: usize) -> Result<Vec<Figure>> {
    let mut figures = vec![];
    for i in 0..results {
        let metrics = metric::read(task.input(&i.to_string())?).context("cannot read the metrics of a result")?;
        let predictions = Predictions::read(task.input(&format!("{i}.predictions"))?)?;
        let named = |name: &str| predictions.figures.iter().any(|figure| figure.name() == name);
        let of_images = metrics.into_iter().filter(|metric| named(&metric.name) && metric.split == predictions.split);
        figures.extend(of_images.map(|metric| Figure { evaluation: predictions.evaluation.clone(), metric }));
    }
    Ok(figures)
}

fn part(path: &Path) -> Result<Part> {
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(Part { bytes, blake3: digest(path)? })
}

fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn save(path: &PathBuf, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
