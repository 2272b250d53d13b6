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

/// A tensor that every backbone has; the prefix of its name is the prefix of all names.
const FIRST: &str = "conv1.weight";
/// Prefix of the trained encoder, as opposed to its moving average in the same file.
const TRAINED: &str = "encoder_q.";
/// Suffix of tensors that only count batches, which are not used here.
const COUNTER: &str = "num_batches_tracked";

/// Writes `encoder.safetensors`, without a head.
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

/// A file of weights in either format.
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
        ensure!(start.get(8) == Some(&b'{'), "it is neither safetensors nor a file of a current torch.save");
        Ok(Weights::Safetensors(Tensors::read(path)?))
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Weights::Safetensors(file) => file.tensors.keys().map(String::as_str).collect(),
            Weights::Pth(file) => file.names().collect(),
        }
    }

    /// The tensors whose names start with `prefix`, with the prefix stripped, without head and counters.
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
            ensure!(float, "'{name}' is of type {:?}; only f32, f16 and bf16 can be imported", tensor.kind());
            let finite = tensor.isfinite().all().int64_value(&[]) == 1;
            ensure!(finite, "'{name}' contains numbers that are not finite");
            backbone.insert(inside.into(), tensor);
        }
        tracing::info!("imported {} tensors with prefix '{prefix}', left out {left_out} others", backbone.len());
        Ok(backbone)
    }
}

/// The prefix of the backbone's names: the given one, else the detected one, else an error that lists the choices.
fn prefix(names: Vec<&str>, wanted: Option<&str>) -> Result<String> {
    let found: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(FIRST)).filter(|p| dotted(p)).collect();
    if let Some(wanted) = wanted {
        ensure!(found.contains(&wanted), "it has no '{wanted}{FIRST}'; the prefixes are {found:?}");
        return Ok(wanted.into());
    }
    let trained: Vec<&&str> = found.iter().filter(|prefix| prefix.ends_with(TRAINED)).collect();
    match (found.as_slice(), trained.as_slice()) {
        ([only], _) => Ok((*only).into()),
        (_, [only]) => Ok((**only).into()),
        ([], _) => {
            bail!("it has no '{FIRST}' among its {} tensors: {:?}…", names.len(), &names[..names.len().min(4)])
        }
        _ => bail!("it contains several networks; give one `prefix` of {found:?}"),
    }
}

/// Whether a prefix ends between two parts of a name. The `conv1.weight` of a block is not the first tensor of a
/// network.
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
        assert!(error.contains("no 'x.conv1.weight'; the prefixes are"), "{error}");
    }
}
