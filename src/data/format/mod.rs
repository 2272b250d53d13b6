//! The layouts of data sets: each lists the images of a split with their labels, from its own annotation files. Listing
//! opens no images.

mod annotated;
mod archive;
mod cifar;
mod folder;
mod imagenet;
mod matlab;
mod shards;
mod voc;

use super::dataset::{Unreadable, Within};
use anyhow::{Context, Result, bail, ensure};
use caco_kinds::{Format, Split};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub use folder::flat;

/// The images of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Class names, by number.
    pub classes: Vec<String>,
    /// The images, in no particular order.
    pub images: Vec<Listed>,
    /// What is there but cannot be listed as an image, such as a broken link, and why.
    pub left_out: Vec<Unreadable>,
}

/// An image listed by a layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name in the set; for an image in its own file, the path below the root, with parts separated by `/`.
    pub path: String,
    /// What it shows.
    pub label: Label,
    /// Its location, if it is not in its own file.
    pub within: Option<Within>,
}

/// What an image shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// The number of a class.
    One(u32),
    /// The numbers of all classes that it shows, ascending; may be empty.
    Several(Vec<u32>),
}

/// A layout.
pub trait List: Sync {
    /// The images of a split below `root`; the split must be one that the layout has (see [`Format::splits`]).
    fn list(&self, root: &Path, split: Split) -> Result<Listing>;
}

/// The images of a split of a set. Errors name the file and the line that violates the layout.
pub fn list(format: Format, split: Option<Split>, root: &Path) -> Result<Listing> {
    let layout: &dyn List = match format {
        Format::ImageFolder => &folder::ImageFolder,
        Format::WebDataset => &shards::WebDataset,
        Format::Cifar10 => &cifar::CIFAR10,
        Format::Cifar100 => &cifar::CIFAR100,
        Format::Food101 => &annotated::Food101,
        Format::Sun397 => &annotated::Sun397,
        Format::StanfordCars => &matlab::StanfordCars,
        Format::FgvcAircraft => &annotated::FgvcAircraft,
        Format::Voc2007 => &voc::Voc2007,
        Format::Dtd => &annotated::Dtd,
        Format::OxfordPets => &annotated::OxfordPets,
        Format::Caltech101 => &folder::Caltech101,
        Format::Flowers102 => &matlab::Flowers102,
        Format::ImageNet => &imagenet::ImageNet,
    };
    ensure!(root.is_dir(), "{} is not a folder", root.display());
    // A layout without splits ignores the argument.
    let mut listing = layout.list(root, split.unwrap_or(Split::Train))?;
    ensure!(!listing.images.is_empty(), "{} lists no images{}", root.display(), instead(&listing.left_out));
    listing.images.sort();
    if let Some(twice) = listing.images.windows(2).find(|pair| pair[0].path == pair[1].path) {
        bail!("{} is listed twice", twice[0].path);
    }
    check(&listing).with_context(|| format!("the annotations in {}", root.display()))?;
    Ok(listing)
}

fn check(listing: &Listing) -> Result<()> {
    let classes = listing.classes.len() as u32;
    for image in &listing.images {
        let shown = match &image.label {
            Label::One(class) => std::slice::from_ref(class),
            Label::Several(classes) => classes,
        };
        if let Some(class) = shown.iter().find(|class| **class >= classes) {
            bail!("{} has class number {class} (from 0), there are {classes} classes", image.path);
        }
    }
    Ok(())
}

/// What a listing without images found instead.
fn instead(left_out: &[Unreadable]) -> String {
    match left_out {
        [] => String::new(),
        [first, ..] => format!("; {} cannot be used, the first: {}: {}", left_out.len(), first.path, first.unreadable),
    }
}

/// An image in its own file.
fn image(path: String, class: u32) -> Listed {
    Listed { path, label: Label::One(class), within: None }
}

/// The non-empty lines of an annotation file, with their line numbers.
fn lines(file: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = read(file, ANNOTATIONS_MAX)?;
    // Older annotation files are in Latin-1; ASCII is the same in both.
    let text = String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().iter().map(|b| *b as char).collect());
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).collect())
}

/// Names numbered by their line; no line may be empty.
fn numbered(file: &Path) -> Result<Vec<String>> {
    let lines = lines(file)?;
    let gap = lines.iter().zip(1..).find(|((number, _), expected)| number != expected);
    ensure!(gap.is_none(), "{}: there is an empty line among the names", file.display());
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// Maximum size of an annotation file; the largest in use has 6 MB.
const ANNOTATIONS_MAX: u64 = 64 << 20;

/// Reads a file of at most `most` bytes.
fn read(file: &Path, most: u64) -> Result<Vec<u8>> {
    let length = fs::metadata(file).with_context(|| format!("cannot read the annotations {}", file.display()))?.len();
    ensure!(length <= most, "{} has {length} bytes, more than the {most} allowed for such a file", file.display());
    fs::read(file).with_context(|| format!("cannot read the annotations {}", file.display()))
}

/// The first of these that exists below the root: data sets are unpacked one folder higher or lower.
fn one_of(root: &Path, candidates: &[&str]) -> Result<PathBuf> {
    let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
    found.with_context(|| format!("{} contains none of these: {}", root.display(), candidates.join(", ")))
}

/// The path of `file` below `root`, as an index names it.
fn below(root: &Path, file: &Path) -> Result<String> {
    let relative = file.strip_prefix(root).with_context(|| format!("{} leaves {}", file.display(), root.display()))?;
    let parts = relative.components().map(|part| match part {
        std::path::Component::Normal(part) => {
            part.to_str().with_context(|| format!("{} has a name that is not UTF-8; rename it", file.display()))
        }
        _ => bail!("{} leaves {}", file.display(), root.display()),
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.join("/"))
}

/// Checks a relative name in an annotation file; an error if it is empty or leaves the folder.
fn inside(name: &str) -> Result<&str> {
    let leaves = |part: &str| part.is_empty() || part == "." || part == "..";
    ensure!(!name.split('/').any(leaves) && !name.contains(['\\', '\0']), "the path '{name}' leaves the folder");
    Ok(name)
}

/// Adds the file and the line to an error.
fn at<T>(file: &Path, line: usize, result: Result<T>) -> Result<T> {
    result.with_context(|| format!("{}, line {line}", file.display()))
}

#[cfg(test)]
mod corrupted;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes files below a folder.
    pub fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    /// The images of a split: path and class name.
    pub fn listed(format: Format, split: Split, root: &Path) -> Vec<(String, String)> {
        let listing = list(format, Some(split), root).unwrap();
        let name = |label: &Label| match label {
            Label::One(class) => listing.classes[*class as usize].clone(),
            Label::Several(classes) => {
                classes.iter().map(|class| listing.classes[*class as usize].as_str()).collect::<Vec<_>>().join("+")
            }
        };
        listing.images.iter().map(|image| (image.path.clone(), name(&image.label))).collect()
    }

    /// The error for an invalid tree.
    pub fn refused(format: Format, split: Split, files: &[(&str, &[u8])]) -> String {
        format!("{:#}", list(format, Some(split), tree(files).path()).unwrap_err())
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../x", "/etc/passwd", "a//b", "", "a/../../x", "a\\..\\b", "./a", "a/"] {
            assert!(format!("{:#}", inside(name).unwrap_err()).contains("leaves the folder"), "{name}");
        }
        assert_eq!(inside("a b/c..jpg").unwrap(), "a b/c..jpg");
    }

    #[test]
    fn old_files_are_read_as_latin1() {
        let root = tree(&[("a.txt", b"\xef\xbb\xbfCitro\xc3\xabn\r\n\n x"), ("b.txt", b"Citro\xebn\n")]);
        assert_eq!(lines(&root.path().join("a.txt")).unwrap(), [(1, "Citroën".into()), (3, "x".into())]);
        assert_eq!(lines(&root.path().join("b.txt")).unwrap(), [(1, "Citroën".into())]);
        let error = format!("{:#}", numbered(&root.path().join("a.txt")).unwrap_err());
        assert!(error.contains("a.txt: there is an empty line among the names"), "{error}");
    }
}
