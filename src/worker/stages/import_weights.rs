//! Kind `import_weights`: a published backbone as an encoder.

use crate::task::Task;
use anyhow::{Context as _, Result, bail, ensure};
use caco_kinds::{Determinism, ImportWeights};
use caco_learn::{
    device,
    model::{Encoder, Shape},
    pth::Pth,
    tensors::Tensors,
};
use caco_measure::metric::Metric;
use std::{borrow::Cow, collections::BTreeMap, fs::File, io::Read as _, path::Path};
use tch::{Device, Kind, Tensor};

/// A tensor that every backbone has; the prefix of its name is the prefix of all names.
const FIRST: &str = "conv1.weight";
/// Start of the names after the stem. Blocks have a `conv1.weight`, too, but no layers.
const LAYER: &str = "layer1.";
/// The trained encoder, as opposed to its moving average in the same file: by MoCo and what follows it, and by MoCo v3.
const TRAINED: [&str; 2] = ["encoder_q", "base_encoder"];
/// How the modules of a backbone are called, without their numbers. One that the network lacks is an error; modules of
/// other names, such as heads, are left out.
const MODULES: [&str; 5] = ["conv", "bn", "norm", "layer", "stem"];
/// How many of the names that are left out are logged.
const SHOWN: usize = 8;
/// Suffix of tensors that only count batches, which are not used here.
const COUNTER: &str = "num_batches_tracked";

/// Writes `encoder.safetensors`, without a head.
pub fn run(task: &Task) -> Result<()> {
    let parameters: ImportWeights = task.parameters()?;
    device::open("cpu", task.threads, Determinism::Fast)?;
    let path = task.input("file")?;
    let import = || -> Result<Encoder> {
        let weights = Weights::open(path)?;
        let prefix = prefix(weights.names(), parameters.prefix.as_deref()).map_err(|error| match weights.unread() {
            Some(unread) => error.context(unread),
            None => error,
        })?;
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

    /// The objects in the file that are no tensors, and the class or function of each.
    fn others(&self) -> Vec<(&str, &str)> {
        match self {
            Weights::Safetensors(_) => vec![],
            Weights::Pth(file) => file.others().collect(),
        }
    }

    /// The same, as a sentence, if there are any.
    fn unread(&self) -> Option<String> {
        let others = self.others();
        let named = others.iter().map(|(name, class)| format!("'{name}' ({class})"));
        let sentence = || format!("{} objects in it are no tensors and were not read", others.len());
        (!others.is_empty()).then(|| sentence() + &listed(named.collect()))
    }

    /// The tensors of the backbone below `prefix`, with the prefix stripped.
    fn backbone(&self, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
        let names = self.names();
        let children = Children::of(&names, prefix);
        if let Some((name, class)) = self.others().into_iter().find(|(name, _)| children.inside(prefix, name).is_some())
        {
            bail!("'{name}' is what {class} makes and not a plain tensor; save it as one, in Python");
        }
        let mut backbone = BTreeMap::new();
        let mut left_out = vec![];
        for name in names {
            let Some(inside) = children.inside(prefix, name) else {
                left_out.push(name);
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
        tracing::info!(
            "imported {} tensors with prefix '{prefix}', left out {} others{}",
            backbone.len(),
            left_out.len(),
            listed(modules(&left_out))
        );
        if let Some(unread) = self.unread() {
            tracing::info!("{unread}");
        }
        Ok(backbone)
    }
}

/// Whether a name, without the prefix, belongs to the backbone. Counters of batches, which are not used here, do not.
fn is_of_backbone(name: &str) -> bool {
    let module = name.split('.').next().unwrap_or_default();
    let word = module.trim_end_matches(|digit: char| digit.is_ascii_digit());
    MODULES.contains(&word) && !name.ends_with(COUNTER)
}

/// The modules of these tensors, in the order of their names. Those that only count batches are not worth naming.
fn modules(tensors: &[&str]) -> Vec<String> {
    let named = tensors.iter().filter(|name| !name.ends_with(COUNTER));
    let mut modules: Vec<String> =
        named.map(|name| name.rsplit_once('.').map_or(*name, |(module, _)| module).into()).collect();
    modules.dedup();
    modules
}

/// The first of these names, after a colon.
fn listed(names: Vec<String>) -> String {
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.is_empty() { String::new() } else { format!(": {first}{more}") }
}

/// The prefix of the backbone's names: the given one, else the detected one, else an error that lists the choices.
fn prefix(names: Vec<&str>, wanted: Option<&str>) -> Result<String> {
    let found: Vec<&str> = networks(&names);
    if let Some(wanted) = wanted {
        ensure!(found.contains(&wanted), "it has no '{wanted}{FIRST}'; the prefixes are {found:?}");
        return Ok(wanted.into());
    }
    let is_trained = |prefix: &&&str| prefix.split('.').any(|part| TRAINED.contains(&part));
    let trained: Vec<&&str> = found.iter().filter(is_trained).collect();
    match (found.as_slice(), trained.as_slice()) {
        ([only], _) => Ok((*only).into()),
        (_, [only]) => Ok((**only).into()),
        ([], _) => {
            let (all, some) = (names.len(), &names[..names.len().min(4)]);
            bail!(
                "it has no '{FIRST}' among its {all} tensors that has '{LAYER}0.{FIRST}' and the other names of \
                 torchvision's ResNets beside it: {some:?}…; rename them in Python"
            )
        }
        _ => bail!("it contains several networks; give one `prefix` of {found:?}"),
    }
}

/// The prefixes of the networks in a file. A prefix may end with the number of an item of `Sequential`, as the name of a
/// block does; what follows distinguishes them.
fn networks<'n>(names: &[&'n str]) -> Vec<&'n str> {
    let has_layers = |prefix: &str| {
        let below = |name: &&str| name.strip_prefix(prefix).is_some_and(|name| name.starts_with(LAYER));
        names.iter().any(below)
    };
    let starts = names.iter().filter_map(|name| name.strip_suffix(FIRST));
    let named = starts.filter(|prefix| (prefix.is_empty() || prefix.ends_with('.')) && has_layers(prefix));
    let mut found: Vec<&str> = named.chain(names.iter().filter_map(|name| Children::prefix(name))).collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|prefix| has_names(names, prefix) || Children::of(names, prefix).complete());
    found
}

/// Whether the modules of the network below `prefix` have torchvision's names.
fn has_names(names: &[&str], prefix: &str) -> bool {
    names.iter().any(|name| name.strip_prefix(prefix) == Some(FIRST))
}

/// The modules of a backbone whose names are numbers, as those of `Sequential(*resnet.children())`, by number.
#[derive(Default)]
struct Children(BTreeMap<u32, String>);

impl Children {
    /// The first block of a layer.
    const BLOCK: &str = "0.conv1.weight";
    const STATISTICS: &str = "running_mean";

    /// The prefix of a name if it is the first block's of a layer that is called by a number.
    fn prefix(name: &str) -> Option<&str> {
        let layer = name.strip_suffix(Self::BLOCK)?.strip_suffix('.')?;
        let prefix = layer.trim_end_matches(|digit: char| digit.is_ascii_digit());
        (prefix.len() < layer.len() && (prefix.is_empty() || prefix.ends_with('.'))).then_some(prefix)
    }

    /// The modules below `prefix`: none where they have names, or where two could be the same one.
    fn of(names: &[&str], prefix: &str) -> Self {
        let mut children = Children::default();
        if has_names(names, prefix) {
            return children;
        }
        let mut modules: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (number, rest) in names.iter().filter_map(|name| name.strip_prefix(prefix)?.split_once('.')) {
            if let Ok(number) = number.parse() {
                modules.entry(number).or_default().push(rest);
            }
        }
        let mut layers = 0;
        for (number, parts) in modules {
            let has = |part: &str| parts.contains(&part);
            let name = if has(Self::BLOCK) {
                layers += 1;
                format!("layer{layers}")
            } else if layers == 0 && has(Self::STATISTICS) {
                "bn1".into()
            } else if layers == 0 && has("weight") {
                "conv1".into()
            } else {
                continue;
            };
            if children.0.values().any(|other| *other == name) {
                return Children::default();
            }
            children.0.insert(number, name);
        }
        children
    }

    /// Whether there is a stem and a layer.
    fn complete(&self) -> bool {
        ["conv1", "bn1", "layer1"].iter().all(|wanted| self.0.values().any(|name| name == wanted))
    }

    /// The name of a tensor in the backbone below `prefix`; `None` if it does not belong to it.
    fn inside<'n>(&self, prefix: &str, name: &'n str) -> Option<Cow<'n, str>> {
        let inside = name.strip_prefix(prefix)?;
        let numbered = inside.split_once('.').and_then(|(number, rest)| Some((number.parse().ok()?, rest)));
        let called = numbered.and_then(|(number, rest)| Some(format!("{}.{rest}", self.0.get(&number)?)));
        let inside = called.map_or(Cow::from(inside), Cow::from);
        is_of_backbone(&inside).then_some(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trained_encoder_is_found() {
        let found = |names: &[&str]| prefix(names.to_vec(), None);
        let networks = |prefixes: &[&str]| -> Vec<String> {
            let names = |prefix: &&str| [FIRST, "layer1.0.conv1.weight"].map(|name| format!("{prefix}{name}"));
            prefixes.iter().flat_map(names).collect()
        };
        let names = networks(&["state_dict.module.encoder_k.", "state_dict.module.encoder_q."]);
        let both: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(found(&both).unwrap(), "state_dict.module.encoder_q.");
        for only in ["", "model.", "0.", "1.", "4.0.", "module.backbone.0."] {
            let names = networks(&[only]);
            assert_eq!(found(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(), only);
        }
        // The encoder and its head in a Sequential, as MMSelfSup has them, beside the same tensors without the head.
        let names = networks(&["backbone.", "encoder_k.0.", "encoder_q.0."]);
        assert_eq!(found(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(), "encoder_q.0.");
        assert_eq!(
            prefix(both.to_vec(), Some("state_dict.module.encoder_k.")).unwrap(),
            "state_dict.module.encoder_k."
        );
        let names = networks(&["student.", "teacher."]);
        let error = found(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(error.contains(r#"give one `prefix` of ["student.", "teacher."]"#), "{error}");
        let error = found(&["patch_embed.weight"]).unwrap_err().to_string();
        assert!(error.contains("no 'conv1.weight' among its 1 tensors"), "{error}");
        let names = networks(&["state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."]);
        let found_in = found(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert_eq!(found_in, "state_dict.module.base_encoder.");
        // Blocks of a Sequential without a stem.
        let flat = ["0.weight", "1.weight", "4.0.conv1.weight", "4.1.conv1.weight"];
        let error = found(&flat).unwrap_err().to_string();
        assert!(error.contains("'layer1.0.conv1.weight' and the other names") && error.contains("4.0"), "{error}");
        let error = prefix(both.to_vec(), Some("x.")).unwrap_err().to_string();
        assert!(error.contains("no 'x.conv1.weight'; the prefixes are"), "{error}");
    }

    #[test]
    fn the_children_of_a_resnet_in_a_sequential_are_named() {
        for (prefix, layers) in [("", [4, 5, 6, 7]), ("features.module.", [4, 5, 6, 7]), ("backbone.", [3, 4, 5, 6])] {
            let blocks = layers.map(|layer| format!("{prefix}{layer}.0.conv1.weight"));
            let mut names: Vec<String> =
                ["0.weight", "1.weight", "1.running_mean", "1.num_batches_tracked", "9.weight"]
                    .map(|name| format!("{prefix}{name}"))
                    .into();
            names.extend(blocks);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(super::prefix(names.clone(), None).unwrap(), prefix);
            let children = Children::of(&names, prefix);
            let inside: Vec<_> = names.iter().filter_map(|name| children.inside(prefix, name)).collect();
            let stem = ["conv1.weight", "bn1.weight", "bn1.running_mean"].map(String::from);
            let expected = stem.into_iter().chain((1..=4).map(|layer| format!("layer{layer}.0.conv1.weight")));
            assert_eq!(inside, expected.collect::<Vec<_>>());
        }
        // A stem of several convolutions is not a ResNet's.
        assert_eq!(networks(&["0.weight", "1.running_mean", "2.weight", "4.0.conv1.weight"]), [""; 0]);
        // Numbers beside a network with names are heads.
        let names = ["0.weight", "1.running_mean", "4.0.conv1.weight", "conv1.weight", "layer1.0.conv1.weight"];
        assert_eq!(networks(&names), [""]);
        assert_eq!(Children::of(&names, "").inside("", "0.weight"), None);
    }

    #[test]
    fn heads_are_left_out_and_blocks_are_not() {
        for name in ["conv1.weight", "bn1.running_var", "layer4.2.conv3.weight", "layer5.0.bn1.bias", "conv2.weight"] {
            assert!(is_of_backbone(name), "{name}");
        }
        let heads = [
            "fc.weight",
            "linear.bias",
            "classifier.weight",
            "head.fc.weight",
            "projection_head.0.weight",
            "projection_head.1.num_batches_tracked",
            "projection_head.3.bias",
            "projection_head.3.weight",
            "prototypes.weight",
            "top_layer.weight",
            "mask",
        ];
        for name in heads.iter().chain(&["bn1.num_batches_tracked"]) {
            assert!(!is_of_backbone(name), "{name}");
        }
        let modules = modules(&heads[4..]);
        assert_eq!(modules, ["projection_head.0", "projection_head.3", "prototypes", "top_layer", "mask"]);
        assert_eq!(listed(modules[..2].to_vec()), ": projection_head.0, projection_head.3");
        assert_eq!(listed(vec!["a".into(); SHOWN + 1]), ": a, a, a, a, a, a, a, a, …");
        assert_eq!(listed(vec![]), "");
    }
}
