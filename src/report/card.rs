//! A model card: describes exported weights, for programs and for people.

use caco_kinds::{Arch, Model, Stem};
use caco_measure::metric::Metric;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// The description of exported weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The key of the result that contains them, which leads to everything they were computed from.
    pub key: String,
    /// BLAKE3 of the exported encoder.
    pub encoder: String,
    /// The backbone.
    pub architecture: Architecture,
    /// The input format of the backbone.
    pub images: Images,
    /// The files, by name.
    pub files: BTreeMap<String, Part>,
    /// Its metrics.
    pub figures: Vec<Figure>,
}

/// A backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Depth, width, stem, and the sizes of the head it was trained with.
    #[serde(flatten)]
    pub model: Model,
    /// Number of features.
    pub features: u64,
    /// Number of parameters, without those of the head.
    pub parameters: u64,
}

/// RGB images as fractions of 255, minus `mean`, divided by `std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Images {
    /// Mean of red, green and blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f64; 3],
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its BLAKE3 digest.
    pub blake3: String,
}

/// A metric of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The kind of evaluation.
    pub evaluation: String,
    /// The metric; accuracies are fractions.
    #[serde(flatten)]
    pub metric: Metric,
}

impl Card {
    /// The card as Markdown.
    pub fn markdown(&self) -> String {
        let Architecture { model, features, parameters } = &self.architecture;
        let mut text = format!("# {:?}, pre-trained without labels\n\n", model.arch);
        let stem = match model.stem {
            Stem::Imagenet => "7×7 stem of stride 2 and max-pool",
            Stem::Cifar => "3×3 stem of stride 1",
        };
        let size = format!("width {}, {stem}; {features} features, {parameters} parameters", model.width);
        let _ = writeln!(text, "Backbone: {size}.\n");
        let _ =
            writeln!(text, "Images: RGB in 0 to 1, less {:?}, divided by {:?}.\n", self.images.mean, self.images.std);
        text += "| file | bytes | BLAKE3 |\n| --- | --- | --- |\n";
        for (name, part) in &self.files {
            let _ = writeln!(text, "| {name} | {} | {} |", part.bytes, part.blake3);
        }
        text += "\n## Figures\n\n";
        text += &self.figures();
        let _ = write!(text, "\n## Use\n\n{}\n", self.usage());
        let _ =
            writeln!(text, "Key of the result: `{}`. BLAKE3 of the encoder it exports: `{}`.", self.key, self.encoder);
        text
    }

    fn figures(&self) -> String {
        if self.figures.is_empty() {
            return "None was asked for.\n".into();
        }
        let mut text =
            "| evaluation | metric | split | % | 95 % interval | images |\n| --- | --- | --- | --- | --- | --- |\n"
                .to_string();
        for Figure { evaluation, metric: m } in &self.figures {
            let per_cent = |share: f64| format!("{:.1}", 100.0 * share);
            let interval =
                m.interval.map_or(String::new(), |(low, high)| format!("{} – {}", per_cent(low), per_cent(high)));
            let images = m.samples.map_or(String::new(), |n| n.to_string());
            let value = per_cent(m.value);
            let _ = writeln!(text, "| {evaluation} | {} | {} | {value} | {interval} | {images} |", m.name, m.split);
        }
        text
    }

    /// How PyTorch libraries load the backbone, if they have a constructor for it.
    fn usage(&self) -> String {
        let Model { arch, width, stem, .. } = &self.architecture.model;
        if *width != 64 || *stem != Stem::Imagenet {
            return "The tensors have torchvision's names, but torchvision and timm build no network of this width and stem.\n"
                .into();
        }
        let name = match arch {
            Arch::ResNet18 => "resnet18",
            Arch::ResNet34 => "resnet34",
            Arch::ResNet50 => "resnet50",
        };
        format!(
            "```python\nimport torch\nfrom safetensors.torch import load_file\n\nweights = load_file(\"backbone.safetensors\")\n\n\
             import torchvision\nmodel = torchvision.models.{name}()\nmodel.fc = torch.nn.Identity()\n\
             model.load_state_dict(weights)\n\nimport timm\nmodel = timm.create_model(\"{name}\", num_classes=0)\n\
             model.load_state_dict(weights)\n```\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(width: u32) -> Card {
        let model = Model { arch: Arch::ResNet50, width, stem: Stem::Imagenet, hidden: 2048, dim: 256 };
        Card {
            key: "00ff".into(),
            encoder: "1234".into(),
            architecture: Architecture { model, features: 2048, parameters: 23_508_032 },
            images: Images { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
            files: BTreeMap::from([("backbone.safetensors".into(), Part { bytes: 94_000_000, blake3: "abcd".into() })]),
            figures: vec![Figure { evaluation: "knn".into(), metric: Metric::share("top1", "test", 371, 1000) }],
        }
    }

    #[test]
    fn a_card_reads_well() {
        insta::assert_snapshot!(card(64).markdown());
    }

    #[test]
    fn a_card_names_only_constructors_that_exist() {
        assert!(!card(16).markdown().contains("torchvision.models"));
    }

    #[test]
    fn a_card_round_trips_through_json() {
        let text = serde_json::to_string(&card(64)).unwrap();
        assert_eq!(serde_json::from_str::<Card>(&text).unwrap(), card(64));
        assert!(text.contains(r#""architecture":{"arch":"ResNet50","width":64"#), "{text}");
    }
}
