//! Public data sets: where their archives come from, how they are verified, and how they are unpacked.
//!
//! `data_sets.ron` is the catalogue. Each data set has its own folder ([`place`]); [`fetch`] fills it: [`download`],
//! verify with [`digest`], then [`unpack`].

pub mod digest;
pub mod download;
pub mod fetch;
pub mod place;
pub mod unpack;

use anyhow::{Context, Result, bail, ensure};
use caco_kinds::{Format, Split};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path},
};

/// The catalogue of data sets.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Catalogue {
    /// The data sets, in listing order.
    pub sets: Vec<DataSet>,
}

/// The catalogue entry of a data set.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Its name in caco.
    pub name: String,
    /// Its official name, its authors, and its version.
    pub title: String,
    /// Its home page.
    pub source: String,
    /// Its terms of use, by its home page.
    pub licence: String,
    /// Its layout when unpacked, as an `index` stage names it.
    pub format: Format,
    /// The subfolder that an `index` stage takes as root.
    pub root: String,
    /// Images of each split.
    pub images: BTreeMap<Split, u64>,
    /// Number of classes.
    pub classes: u32,
    /// The files in which it is published.
    pub archives: Vec<Archive>,
    /// Manual steps needed to get the archives.
    #[serde(default)]
    pub manual: Vec<String>,
    /// Further remarks.
    #[serde(default)]
    pub note: Option<String>,
}

/// A file in which a data set, or part of it, is published.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its name.
    pub file: String,
    /// Its URLs, the best first. Empty: it can only be downloaded by hand.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Its length in bytes.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Its MD5, in hexadecimal.
    #[serde(default)]
    pub md5: Option<String>,
    /// Its SHA-256, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// How it is unpacked.
    pub unpack: Unpack,
    /// Nested archives, which are unpacked in place and removed.
    #[serde(default)]
    pub nested: Vec<String>,
    /// Upper bound on its unpacked size. Default: [`unpack::Limits::default`].
    #[serde(default)]
    pub unpacked: Option<u64>,
    /// The subfolder of the data set's folder that it is unpacked into. Empty: that folder itself.
    #[serde(default)]
    pub into: String,
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, Deserialize)]
pub enum Unpack {
    /// Not unpacked, used as it is.
    No,
    Tar,
    TarGz,
    Zip,
}

impl Catalogue {
    /// The built-in catalogue.
    pub fn embedded() -> Self {
        Self::read(include_str!("data_sets.ron")).expect("a test reads the embedded catalogue")
    }

    /// Reads a catalogue file.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::read(&text).with_context(|| format!("{} is not a catalogue of data sets", file.display()))
    }

    fn read(text: &str) -> Result<Self> {
        let catalogue: Catalogue = ron::from_str(text)?;
        let mut names = BTreeSet::new();
        for set in &catalogue.sets {
            ensure!(names.insert(&set.name), "two data sets are called '{}'", set.name);
            set.check().with_context(|| format!("data set '{}'", set.name))?;
        }
        Ok(catalogue)
    }

    /// The data set of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&DataSet> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.sets.iter().map(|set| set.name.as_str())
    }
}

impl DataSet {
    fn check(&self) -> Result<()> {
        let (mut files, mut name) = (BTreeSet::new(), Path::new(&self.name).components());
        let plain = matches!((name.next(), name.next()), (Some(Component::Normal(_)), None));
        ensure!(plain, "the name cannot be used for a folder");
        below("root", &self.root)?;
        for archive in &self.archives {
            ensure!(files.insert(&archive.file), "two archives are called '{}'", archive.file);
            archive.check().with_context(|| format!("archive '{}'", archive.file))?;
        }
        Ok(())
    }

    /// Images of all splits.
    pub fn all_images(&self) -> u64 {
        self.images.values().sum()
    }

    /// Total bytes of all archives, if all are known.
    pub fn bytes(&self) -> Option<u64> {
        self.archives.iter().map(|archive| archive.bytes).sum()
    }

    /// The lines of a pipeline file that index it, once it is in `folder`.
    pub fn index_lines(&self, folder: &Path) -> Vec<String> {
        self.images.keys().map(|split| self.index_line(folder, *split)).collect()
    }

    fn index_line(&self, folder: &Path, split: Split) -> String {
        let (root, name) = (folder.join(&self.root), split.name());
        let rest = match self.format {
            // An image folder has a folder per split, where other layouts have annotations.
            Format::ImageFolder => format!("index(root: Path({:?}))", root.join(name)),
            format => format!("index(root: Path({root:?}), format: {format:?}, split: {split:?})"),
        };
        format!("\"{name}\": {rest},")
    }
}

impl Archive {
    fn check(&self) -> Result<()> {
        let name = Path::new(&self.file).file_name();
        ensure!(name.is_some_and(|name| name == self.file.as_str()), "its name cannot be used for a file");
        below("into", &self.into)?;
        self.nested.iter().try_for_each(|nested| below("nested", nested))?;
        digits("md5", self.md5.as_deref(), 32)?;
        digits("sha256", self.sha256.as_deref(), 64)
    }
}

/// Rejects a path that leaves the folder it is relative to.
fn below(field: &str, path: &str) -> Result<()> {
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(normal, "{field}: '{path}' leaves the data set's folder");
    Ok(())
}

fn digits(field: &str, text: Option<&str>, count: usize) -> Result<()> {
    let right = |text: &str| text.len() == count && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text {
        Some(text) if !right(text) => bail!("{field}: '{text}' is not {count} hexadecimal digits in lower case"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_set_can_be_read() {
        let catalogue = Catalogue::embedded();
        assert_eq!(catalogue.sets.len(), 13);
        for set in &catalogue.sets {
            assert!(!set.root.is_empty() && !set.images.is_empty() && set.classes > 1, "{}", set.name);
            assert!(set.all_images() >= u64::from(set.classes), "{}", set.name);
            assert!(set.source.starts_with("http") && !set.licence.is_empty(), "{}", set.name);
            // An entry that cannot be downloaded has manual steps.
            let by_hand = set.archives.iter().any(|archive| archive.urls.is_empty());
            assert!(!by_hand || !set.manual.is_empty(), "{}", set.name);
            for archive in &set.archives {
                assert!(archive.urls.iter().all(|url| url.starts_with("http")), "{}", archive.file);
                assert!(archive.nested.is_empty() || archive.unpack != Unpack::No, "{}", archive.file);
            }
        }
    }

    #[test]
    fn roots_are_where_archives_are_unpacked() {
        // For an archive that is unpacked into the folder itself, the first part of the root is its own folder.
        for set in &Catalogue::embedded().sets {
            let into: Vec<&str> =
                set.archives.iter().map(|a| a.into.as_str()).filter(|into| !into.is_empty()).collect();
            let own = set.archives.iter().any(|a| a.into.is_empty() && a.unpack != Unpack::No);
            let first = set.root.split('/').next().unwrap();
            assert!(own || into.contains(&set.root.as_str()), "{}: {} in {into:?}", set.name, set.root);
            assert!(into.iter().all(|into| into.split('/').next() == Some(first)), "{}: {into:?}", set.name);
        }
    }

    #[test]
    fn checksums_are_those_of_the_archives() {
        let catalogue = Catalogue::embedded();
        let md5 = |set: &str, archive: usize| catalogue.get(set).unwrap().archives[archive].md5.clone().unwrap();
        assert_eq!(md5("food101", 0), "85eeb15f3717b99a5da872d97d918f87");
        assert_eq!(md5("cifar10", 0), "c32a1d4ab5d03f1284b67883e8d87530");
        assert_eq!(md5("imagenet", 2), "fa75699e90414af021442c21a62c3abf");
        let without = |set: &&DataSet| set.archives.iter().any(|a| a.md5.is_none() && a.sha256.is_none());
        let without: Vec<&str> = catalogue.sets.iter().filter(without).map(|set| set.name.as_str()).collect();
        assert_eq!(without, ["aircraft"]);
    }

    #[test]
    fn lines_for_a_pipeline() {
        let catalogue = Catalogue::embedded();
        let lines = |name: &str| catalogue.get(name).unwrap().index_lines(Path::new("data").join(name).as_path());
        assert_eq!(
            lines("food101"),
            [
                r#""train": index(root: Path("data/food101/food-101"), format: Food101, split: Train),"#,
                r#""test": index(root: Path("data/food101/food-101"), format: Food101, split: Test),"#
            ]
        );
        assert_eq!(lines("imagenette")[1], r#""val": index(root: Path("data/imagenette/imagenette2-160/val")),"#);
        let caltech = "index(root: Path(\"data/caltech101/caltech-101\"), format: Caltech101, split: Train)";
        assert!(lines("caltech101")[0].contains(caltech));
        assert_eq!(lines("voc2007").len(), 3);
    }

    #[test]
    fn an_invalid_catalogue_is_refused() {
        let set = |name: &str, root: &str, archive: &str| {
            format!(
                "(name: \"{name}\", title: \"\", source: \"\", licence: \"\", format: Dtd, root: \"{root}\", images: {{}}, \
                 classes: 2, archives: [{archive}]),"
            )
        };
        let archive = |rest: &str| format!("(unpack: Tar, {rest})");
        let error =
            |sets: &str| format!("{:#}", Catalogue::read(&format!("#![enable(implicit_some)][{sets}]")).unwrap_err());
        assert!(error(&(set("a", "", "") + &set("a", "", ""))).contains("two data sets are called 'a'"));
        assert!(error(&set("a/b", "", "")).contains("the name cannot be used for a folder"));
        assert!(error(&set("..", "", "")).contains("the name cannot be used for a folder"));
        assert!(error(&set("a", "../b", "")).contains("'../b' leaves the data set's folder"));
        assert!(error(&set("a", "/b", "")).contains("'/b' leaves the data set's folder"));
        let file = |rest: &str| error(&set("a", "", &archive(rest)));
        assert!(file(r#"file: "x/y""#).contains("its name cannot be used for a file"));
        assert!(file(r#"file: "x", into: "..""#).contains("into: '..'"));
        assert!(file(r#"file: "x", md5: "12""#).contains("md5: '12' is not 32 hexadecimal digits"));
        assert!(file(r#"file: "x", nested: ["/a"]"#).contains("nested: '/a'"));
    }
}
