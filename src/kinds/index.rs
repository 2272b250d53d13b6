use super::*;

/// Lists the images of a data set: path, label, size in pixels, byte length and digest of each, sorted by path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The folder of the data set.
    pub root: Source,
    /// The layout of the data set.
    #[serde(default)]
    pub format: Format,
    /// The official split to list, in a layout that has splits.
    #[serde(default)]
    pub split: Option<Split>,
    /// What to do about files that cannot be decoded or listed, and about classes without images.
    #[serde(default)]
    pub unreadable: Unreadable,
}

/// The layout of a data set: where its images and labels are. `caco data list` shows where to get the data sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// `<class>/…/<image>`. Classes are numbered in the byte order of their names. Each split is a separate folder.
    #[default]
    ImageFolder,
    /// Tar archives that contain `<name>.jpg` (or another image) next to `<name>.cls`, read in place; class names are
    /// the lines of `classes.txt`, if it exists. Each split is a separate folder.
    WebDataset,
    /// CIFAR-10, binary version. Splits: Train, Test.
    Cifar10,
    /// CIFAR-100, binary version, with its hundred fine labels. Splits: Train, Test.
    Cifar100,
    /// Food-101. Splits: Train, Test.
    Food101,
    /// SUN397, first partition. Splits: Train, Test.
    Sun397,
    /// Stanford Cars. Splits: Train, Test.
    StanfordCars,
    /// FGVC Aircraft, by variant. Splits: Train, Val, TrainVal, Test.
    FgvcAircraft,
    /// PASCAL VOC 2007, several labels per image; objects marked difficult count as absent. Splits: Train, Val,
    /// TrainVal, Test.
    Voc2007,
    /// Describable Textures, split 1. Splits: Train, Val, TrainVal, Test.
    Dtd,
    /// Oxford-IIIT Pets, by breed. Splits: TrainVal, Test.
    OxfordPets,
    /// Caltech-101, 102 classes with the background; 30 randomly drawn images of each are for training. Splits: Train,
    /// Test.
    Caltech101,
    /// Oxford Flowers-102. Splits: Train, Val, TrainVal, Test.
    Flowers102,
    /// ImageNet-1K: `train/` and `val/` by synset, or the original archives with the devkit, read in place. Splits: Train, Val.
    ImageNet,
}

/// A split of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Split {
    /// Training images.
    Train,
    /// Validation images.
    Val,
    /// Training and validation images.
    TrainVal,
    /// Test images, for the final evaluation.
    Test,
}

impl Split {
    /// Its name in the files of data sets.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::TrainVal => "trainval",
            Split::Test => "test",
        }
    }
}

impl Format {
    /// The splits of the layout; empty if each split is a separate folder.
    pub fn splits(self) -> &'static [Split] {
        use Split::{Test, Train, TrainVal, Val};
        match self {
            Format::ImageFolder | Format::WebDataset => &[],
            Format::Cifar10 | Format::Cifar100 | Format::Food101 | Format::Sun397 => &[Train, Test],
            Format::StanfordCars | Format::Caltech101 => &[Train, Test],
            Format::FgvcAircraft | Format::Voc2007 | Format::Dtd | Format::Flowers102 => &[Train, Val, TrainVal, Test],
            Format::OxfordPets => &[TrainVal, Test],
            Format::ImageNet => &[Train, Val],
        }
    }
}

/// What to do about files that cannot be decoded or listed, and about classes without images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unreadable {
    /// The stage fails and names them all.
    #[default]
    Fail,
    /// They are listed in the index and never used. A class without images keeps its number.
    LeaveOut,
}

impl Kind for Index {
    const NAME: &'static str = "index";
    const VERSION: u32 = 2;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const OUTPUTS: &'static [Output] = &[output("index", "index.jsonl")];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] =
        &[("format", "\"ImageFolder\""), ("split", "null")];
    const SOURCES: &'static [&'static str] = &["root"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input { slot: "root".into(), source: self.root.clone(), role: Role::Content }]
    }

    fn check(&self) -> Result<(), Complaint> {
        let (format, splits) = (self.format, self.format.splits());
        let names = splits.iter().map(|split| format!("{split:?}")).collect::<Vec<_>>().join(", ");
        let given = self.split.map_or_else(|| "is missing; ".into(), |split| format!("is {split:?}; "));
        let message = match splits {
            [] => format!("{given}{format:?} has no splits; leave it out and give the split's folder as `root`"),
            _ => format!("{given}{format:?} has the splits {names}; name one"),
        };
        let known = self.split.map_or(splits.is_empty(), |split| splits.contains(&split));
        ensure(known, "split", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(format: Format, split: Option<Split>) -> Option<String> {
        let root = Source::Path("x".into());
        Index { root, format, split, unreadable: Unreadable::Fail }.check().err().map(|complaint| complaint.message)
    }

    #[test]
    fn a_split_is_required_if_the_layout_has_splits() {
        assert_eq!(complaint(Format::ImageFolder, None), None);
        assert_eq!(complaint(Format::OxfordPets, Some(Split::Test)), None);
        let message = |format, split| complaint(format, split).unwrap();
        assert_eq!(message(Format::OxfordPets, None), "is missing; OxfordPets has the splits TrainVal, Test; name one");
        assert_eq!(message(Format::Cifar10, Some(Split::Val)), "is Val; Cifar10 has the splits Train, Test; name one");
        assert!(message(Format::WebDataset, Some(Split::Val)).contains("has no splits"));
    }
}
