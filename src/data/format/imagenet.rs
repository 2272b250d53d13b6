//! ImageNet-1K (ILSVRC 2012): folders by synset, or the original archives, read in place.

use super::*;
use crate::mat;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
const DEVKIT: &str = "ILSVRC2012_devkit_t12.tar.gz";
/// Maximum number of bytes read from the unpacked devkit; it has 7 MB.
const DEVKIT_MAX: u64 = 64 << 20;

/// `train/<synset>/*` and `val/<synset>/*`, or `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and the devkit (as an
/// archive or unpacked), which holds the classes of the validation images. Either way classes are synsets in the order
/// of their names, so a model trained on one can be evaluated on the other.
pub struct ImageNet;

impl List for ImageNet {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let (folder, archive) = if split == Split::Train { ("train", TRAIN) } else { ("val", VAL) };
        if root.join(folder).is_dir() {
            return folders(root, folder);
        }
        let path = one_of(root, &[folder, archive])?;
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if split == Split::Train { train(&file, &path) } else { val(root, &file, &path) }
    }
}

fn folders(root: &Path, folder: &str) -> Result<Listing> {
    let mut listing = folder::ImageFolder.list(&root.join(folder), Split::Train)?;
    let images = listing.images.iter_mut().map(|image| &mut image.path);
    let paths = images.chain(listing.left_out.iter_mut().map(|file| &mut file.path));
    paths.for_each(|path| *path = format!("{folder}/{path}"));
    Ok(listing)
}

/// An archive that contains one archive per synset.
fn train(file: &File, path: &Path) -> Result<Listing> {
    let mut synsets = archive::members(file, path, 0, file.metadata()?.len())?;
    synsets.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut classes, mut images) = (vec![], vec![]);
    for synset in synsets {
        let name = synset.name.strip_suffix(".tar").and_then(|name| inside(name).ok());
        let name = name.with_context(|| format!("{} holds {}, not <synset>.tar", path.display(), synset.name))?;
        let inner = path.join(&synset.name);
        for member in archive::members(file, &inner, synset.offset, synset.bytes)? {
            let place = format!("{name}/{}", inside(&member.name).with_context(|| inner.display().to_string())?);
            images.push(inside_archive(TRAIN, place, classes.len() as u32, &member));
        }
        classes.push(name.to_owned());
    }
    Ok(Listing { classes, images, left_out: vec![] })
}

/// An archive of images whose classes are lines in the devkit.
fn val(root: &Path, file: &File, path: &Path) -> Result<Listing> {
    let devkit = Devkit::open(root)?;
    let mut members = archive::members(file, path, 0, file.metadata()?.len())?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let (images, truths) = (members.len(), devkit.truths.len());
    ensure!(images == truths, "{} holds {images} images, the devkit's ground truth {truths} lines", path.display());
    let mut classes: Vec<String> = devkit.synsets.values().cloned().collect();
    classes.sort();
    let listed = |(member, truth): (&archive::Member, &u32)| {
        let synset = devkit.synsets.get(truth);
        let synset = synset.with_context(|| {
            format!("the ground truth of {} is {truth}, which is not the number of a synset", member.name)
        })?;
        let class = classes.binary_search(synset).expect("classes are all synsets") as u32;
        let place = inside(&member.name).with_context(|| path.display().to_string())?.to_owned();
        Ok(inside_archive(VAL, place, class, member))
    };
    let images = members.iter().zip(&devkit.truths).map(listed).collect::<Result<_>>()?;
    Ok(Listing { classes, images, left_out: vec![] })
}

fn inside_archive(archive: &str, place: String, class: u32, member: &archive::Member) -> Listed {
    let within = Within { file: archive.to_owned(), offset: member.offset, bytes: member.bytes, planes: None };
    Listed { path: format!("{archive}/{place}"), label: Label::One(class), within: Some(within) }
}

/// The contents of the devkit.
struct Devkit {
    /// The synsets of the challenge, by number.
    synsets: BTreeMap<u32, String>,
    /// The synset number of each validation image, in the order of their names.
    truths: Vec<u32>,
}

impl Devkit {
    fn open(root: &Path) -> Result<Devkit> {
        const FILES: [&str; 2] = ["data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"];
        let folder = root.join("ILSVRC2012_devkit_t12");
        let [meta, truth] = if folder.is_dir() {
            [read(&folder.join(FILES[0]), DEVKIT_MAX)?, read(&folder.join(FILES[1]), DEVKIT_MAX)?]
        } else {
            let archive = one_of(root, &["ILSVRC2012_devkit_t12", DEVKIT])?;
            unpack(&archive, FILES).with_context(|| format!("cannot read {}", archive.display()))?
        };
        let synsets = synsets(&meta).context("meta.mat of the devkit")?;
        let truth = String::from_utf8_lossy(&truth);
        let number = |(i, line): (usize, &str)| {
            let line = line.trim();
            line.parse()
                .with_context(|| format!("line {} of the devkit's ground truth is '{line}', not a number", i + 1))
        };
        Ok(Devkit { synsets, truths: truth.trim_end().lines().enumerate().map(number).collect::<Result<_>>()? })
    }
}

/// The files of an archive whose paths end with `endings`.
fn unpack<const N: usize>(archive: &Path, endings: [&str; N]) -> Result<[Vec<u8>; N]> {
    let file = BufReader::new(File::open(archive)?);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file).take(DEVKIT_MAX));
    let mut found = [const { None }; N];
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some(which) = endings.iter().position(|ending| name.ends_with(ending)) {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes)?;
            found[which] = Some(bytes);
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    let missing = endings.iter().zip(&found).find(|(_, found)| found.is_none());
    missing.map_or(Ok(()), |(ending, _)| Err(anyhow::anyhow!("it contains no file {ending}")))?;
    Ok(found.map(Option::unwrap_or_default))
}

/// The synsets without children, which are the classes; the others are their ancestors.
fn synsets(meta: &[u8]) -> Result<BTreeMap<u32, String>> {
    let variables = mat::parse(meta)?;
    let mut leaves = BTreeMap::new();
    for synset in mat::variable(&variables, "synsets")?.structs()? {
        let whole = |name| mat::field(synset, name)?.whole().context(name);
        let number = whole("ILSVRC2012_ID")?;
        if whole("num_children")? == 0 {
            leaves.insert(number, mat::field(synset, "WNID")?.text().context("WNID")?.to_owned());
        }
    }
    ensure!(!leaves.is_empty(), "there is no synset without children");
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::{
        archive::tests::{gz, tar},
        *,
    };

    const META: &[u8] = include_bytes!("../../../tests/formats/meta.mat");

    fn devkit(truth: &[u8]) -> Vec<u8> {
        let base = "ILSVRC2012_devkit_t12/data";
        let (meta, lines) = (format!("{base}/meta.mat"), format!("{base}/ILSVRC2012_validation_ground_truth.txt"));
        gz(&tar(&[("ILSVRC2012_devkit_t12/readme.txt", b"x"), (&meta, META), (&lines, truth)]))
    }

    #[test]
    fn archives_and_folders_have_the_same_classes() {
        let (a, b) =
            (tar(&[("n01440764_10.JPEG", b"aa"), ("n01440764_9.JPEG", b"b")]), tar(&[("n01443537_1.JPEG", b"c")]));
        let train = tar(&[("n01443537.tar", &b), ("n01440764.tar", &a)]);
        let val = tar(&[("ILSVRC2012_val_00000002.JPEG", b"v2"), ("ILSVRC2012_val_00000001.JPEG", b"v1")]);
        // In the metadata n01443537 has number 1 and n01440764 number 2.
        let root = tree(&[(TRAIN, &train), (VAL, &val), (DEVKIT, &devkit(b"1\n2\n"))]);
        let listing = list(Format::ImageNet, Some(Split::Train), root.path()).unwrap();
        assert_eq!(listing.classes, ["n01440764", "n01443537"]);
        let place =
            |listed: &Listed| listed.within.as_ref().map(|w| train[w.offset as usize..][..w.bytes as usize].to_vec());
        let bytes: Vec<_> = listing.images.iter().map(|image| place(image).unwrap()).collect();
        assert_eq!(bytes, [&b"aa"[..], b"b", b"c"]);
        let name = |i: u32| format!("{VAL}/ILSVRC2012_val_0000000{i}.JPEG");
        let expected = [(name(1), "n01443537".to_owned()), (name(2), "n01440764".to_owned())];
        assert_eq!(listed(Format::ImageNet, Split::Val, root.path()), expected);

        let folders = tree(&[("train/n01443537/a.JPEG", b""), ("train/n01440764/b.JPEG", b"")]);
        let expected = [("train/n01440764/b.JPEG", "n01440764"), ("train/n01443537/a.JPEG", "n01443537")];
        let expected = expected.map(|(path, class)| (path.to_owned(), class.to_owned()));
        assert_eq!(listed(Format::ImageNet, Split::Train, folders.path()), expected);
    }

    #[test]
    fn missing_and_wrong_files_are_errors() {
        let val = tar(&[("1.JPEG", b"v")]);
        let error = |files: &[(&str, &[u8])]| refused(Format::ImageNet, Split::Val, files);
        assert!(error(&[]).contains("none of these: val, ILSVRC2012_img_val.tar"));
        assert!(error(&[(VAL, &val)]).contains("ILSVRC2012_devkit_t12.tar.gz"));
        assert!(
            error(&[(VAL, &val), (DEVKIT, &devkit(b"1\n2\n"))]).contains("holds 1 images, the devkit's ground truth 2")
        );
        assert!(error(&[(VAL, &val), (DEVKIT, &devkit(b"7\n"))]).contains("is 7, which is not the number of a synset"));
        assert!(
            error(&[(VAL, &val), (DEVKIT, &devkit(b"x\n"))]).contains("line 1 of the devkit's ground truth is 'x'")
        );
        assert!(error(&[(VAL, &val), (DEVKIT, &gz(b"")[..])]).contains("contains no file data/meta.mat"));
        assert!(error(&[(VAL, &val), (DEVKIT, &devkit(b"1")[..200])]).contains("cannot read"));
        assert!(error(&[(VAL, &val[..600]), (DEVKIT, &devkit(b"1"))]).contains(VAL));
        let train = tar(&[("x.txt", b"")]);
        assert!(refused(Format::ImageNet, Split::Train, &[(TRAIN, &train)]).contains("not <synset>.tar"));
    }
}
