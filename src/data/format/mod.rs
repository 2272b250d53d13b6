//! The layouts in which data sets come: each lists the images of a split with their labels, from its own annotation files.
//! Listing opens no image.

mod annotated;
mod archive;
mod cifar;
mod folder;
mod imagenet;
mod matlab;
mod shards;
mod voc;

use super::dataset::Within;
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
}

/// An image that a layout names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name in the set: of a file of its own, the path below the root, parts separated by `/`.
    pub path: String,
    /// What it shows.
    pub label: Label,
    /// Where it lies, if not in a file of its own.
    pub within: Option<Within>,
}

/// What an image shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// The number of a class.
    One(u32),
    /// The numbers of all classes that it shows, ascending; maybe none.
    Several(Vec<u32>),
}

/// A layout.
pub trait List: Sync {
    /// The images of a split below `root`; the split is one that the layout has (see [`Format::splits`]).
    fn list(&self, root: &Path, split: Split) -> Result<Listing>;
}

/// The images of a split of a set. Errors name the file and the line that is not as the layout says.
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
    ensure!(root.is_dir(), "{} is no folder", root.display());
    // A layout without splits is not told one.
    let mut listing = layout.list(root, split.unwrap_or(Split::Train))?;
    ensure!(!listing.images.is_empty(), "{} lists no image", root.display());
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

/// An image in a file of its own.
fn image(path: String, class: u32) -> Listed {
    Listed { path, label: Label::One(class), within: None }
}

/// The lines of an annotation file that are not empty, each with its number.
fn lines(file: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = read(file, ANNOTATIONS_MAX)?;
    // Latin-1 is what older annotation files are in; ASCII is the same in both.
    let text = String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().iter().map(|b| *b as char).collect());
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).collect())
}

/// Names that are numbered by their lines: none of these is empty.
fn numbered(file: &Path) -> Result<Vec<String>> {
    let lines = lines(file)?;
    let gap = lines.iter().zip(1..).find(|((number, _), expected)| number != expected);
    ensure!(gap.is_none(), "{}: an empty line stands among the names", file.display());
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// The most bytes of a file of annotations; the largest in use has 6 MB.
const ANNOTATIONS_MAX: u64 = 64 << 20;

/// A file of at most so many bytes.
fn read(file: &Path, most: u64) -> Result<Vec<u8>> {
    let length = fs::metadata(file).with_context(|| format!("cannot read the annotations {}", file.display()))?.len();
    ensure!(length <= most, "{} has {length} bytes, more than the {most} that such a file can have", file.display());
    fs::read(file).with_context(|| format!("cannot read the annotations {}", file.display()))
}

/// The first of these that is there below the root: data sets are unpacked one folder higher or lower.
fn one_of(root: &Path, candidates: &[&str]) -> Result<PathBuf> {
    let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
    found.with_context(|| format!("{} holds none of these: {}", root.display(), candidates.join(", ")))
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

/// A relative name of an annotation file, refused where it is empty or leads elsewhere.
fn inside(name: &str) -> Result<&str> {
    let leaves = |part: &str| part.is_empty() || part == "." || part == "..";
    ensure!(!name.split('/').any(leaves) && !name.contains(['\\', '\0']), "the path '{name}' leaves the folder");
    Ok(name)
}

/// Turns what went wrong at a line into an error that names it.
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

    /// What is said about a tree that is not right.
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
    fn old_files_are_latin() {
        let root = tree(&[("a.txt", b"\xef\xbb\xbfCitro\xc3\xabn\r\n\n x"), ("b.txt", b"Citro\xebn\n")]);
        assert_eq!(lines(&root.path().join("a.txt")).unwrap(), [(1, "Citroën".into()), (3, "x".into())]);
        assert_eq!(lines(&root.path().join("b.txt")).unwrap(), [(1, "Citroën".into())]);
        let told = format!("{:#}", numbered(&root.path().join("a.txt")).unwrap_err());
        assert!(told.contains("a.txt: an empty line stands among the names"), "{told}");
    }
}
