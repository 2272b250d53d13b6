//! Kind `import_weights`: a published backbone as an encoder.

use crate::task::Task;
use anyhow::{Context as _, Result, bail, ensure};
use caco_kinds::ImportWeights;
use caco_learn::{
    device,
    model::{Encoder, Shape},
    pth::Pth,
    tensors::Tensors,
};
use caco_measure::metric::Metric;
use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};
use tch::{Device, Kind, Tensor};

/// A tensor that every backbone has: what stands before its name stands before all.
const FIRST: &str = "conv1.weight";
/// Before the names of the encoder that is trained; its moving average lies beside it.
const TRAINED: &str = "encoder_q.";
/// Behind the names of what only counts batches. Nothing here reads it.
const COUNTER: &str = "num_batches_tracked";

/// Writes `encoder.safetensors`, which holds no head.
pub fn run(task: &Task) -> Result<()> {
    let parameters: ImportWeights = task.parameters()?;
    device::open("cpu", task.threads)?;
    let path = task.input("file")?;
    let import = || -> Result<Encoder> {
        let weights = Weights::open(path)?;
        let prefix = prefix(weights.names(), parameters.prefix.as_deref())?;
        let model = parameters.model();
        let network = Shape::from(&model).load(weights.backbone(&prefix)?, Kind::Float, Device::Cpu)?;
        Ok(Encoder { model, network })
    };
    let encoder = import().with_context(|| format!("cannot import {}", path.display()))?;
    encoder.save(&task.output("encoder.safetensors"))?;
    let parameters: usize = encoder.network.weights().parameters().map(|(_, tensor)| tensor.numel()).sum();
    task.metrics(&[Metric::new("parameters", "all", parameters as f64)])
}

/// A file of weights of either format.
enum Weights {
    Safetensors(Tensors),
    Pth(Box<Pth>),
}

impl Weights {
    fn open(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut start)?;
        if Pth::begins(&start) {
            return Ok(Weights::Pth(Box::new(Pth::open(path)?)));
        }
        ensure!(start.get(8) == Some(&b'{'), "it is neither safetensors nor a file that torch.save writes today");
        Ok(Weights::Safetensors(Tensors::read(path)?))
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Weights::Safetensors(file) => file.tensors.keys().map(String::as_str).collect(),
            Weights::Pth(file) => file.names().collect(),
        }
    }

    /// The tensors behind `prefix`, without it, and without head and counters.
    fn backbone(&self, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
        let mut backbone = BTreeMap::new();
        let mut left_out = 0;
        for name in self.names() {
            let inside = name.strip_prefix(prefix).filter(|n| !n.starts_with("fc.") && !n.ends_with(COUNTER));
            let Some(inside) = inside else {
                left_out += 1;
                continue;
            };
            let tensor = match self {
                Weights::Safetensors(file) => file.tensors[name].shallow_clone(),
                Weights::Pth(file) => file.tensor(name)?,
            };
            let float = matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16);
            ensure!(float, "'{name}' is of type {:?}; f32, f16 and bf16 are imported", tensor.kind());
            let finite = tensor.isfinite().all().int64_value(&[]) == 1;
            ensure!(finite, "'{name}' holds numbers that are not finite");
            backbone.insert(inside.into(), tensor);
        }
        tracing::info!("{} tensors behind '{prefix}' imported, {left_out} others left out", backbone.len());
        Ok(backbone)
    }
}

/// What stands before the backbone's names: what was asked for, else what is found, else an error that names the choice.
fn prefix(names: Vec<&str>, wanted: Option<&str>) -> Result<String> {
    let found: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(FIRST)).filter(|p| dotted(p)).collect();
    if let Some(wanted) = wanted {
        ensure!(found.contains(&wanted), "it has no '{wanted}{FIRST}'; prefixes there are {found:?}");
        return Ok(wanted.into());
    }
    let trained: Vec<&&str> = found.iter().filter(|prefix| prefix.ends_with(TRAINED)).collect();
    match (found.as_slice(), trained.as_slice()) {
        ([only], _) => Ok((*only).into()),
        (_, [only]) => Ok((**only).into()),
        ([], _) => {
            bail!("it holds no '{FIRST}' among its {} tensors: {:?}…", names.len(), &names[..names.len().min(4)])
        }
        _ => bail!("it holds several networks; give one `prefix` of {found:?}"),
    }
}

/// Whether a prefix ends between two parts of a name. A block's own `conv1.weight` is not a network's first.
fn dotted(prefix: &str) -> bool {
    let inner = prefix.trim_end_matches('.').rsplit('.').next().is_some_and(|part| part.parse::<u32>().is_ok());
    prefix.is_empty() || (prefix.ends_with('.') && !inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trained_encoder_is_found() {
        let found = |names: &[&str]| prefix(names.to_vec(), None);
        let both = ["state_dict.module.encoder_k.conv1.weight", "state_dict.module.encoder_q.conv1.weight"];
        assert_eq!(found(&both).unwrap(), "state_dict.module.encoder_q.");
        assert_eq!(found(&["conv1.weight", "layer1.0.conv1.weight"]).unwrap(), "");
        assert_eq!(found(&["model.conv1.weight", "model.layer1.0.conv1.weight"]).unwrap(), "model.");
        assert_eq!(
            prefix(both.to_vec(), Some("state_dict.module.encoder_k.")).unwrap(),
            "state_dict.module.encoder_k."
        );
        let error = found(&["student.conv1.weight", "teacher.conv1.weight"]).unwrap_err().to_string();
        assert!(error.contains(r#"give one `prefix` of ["student.", "teacher."]"#), "{error}");
        let error = found(&["patch_embed.weight"]).unwrap_err().to_string();
        assert!(error.contains("no 'conv1.weight' among its 1 tensors"), "{error}");
        let error = prefix(both.to_vec(), Some("x.")).unwrap_err().to_string();
        assert!(error.contains("no 'x.conv1.weight'; prefixes there are"), "{error}");
    }
}
