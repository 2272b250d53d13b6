//! WebDataset: tar archives ("shards") that contain each image next to its class.

use super::*;
use archive::Member;
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt};

/// Maximum size of a class file, in bytes.
const CLASS_MAX: u64 = 64;

/// Every `*.tar` of the folder, read in place. Files with the same name up to the first dot are one sample (`0001.jpg`,
/// `0001.cls`; github.com/webdataset/webdataset): the image, and the class as a number from 0 in text. Class names are
/// the lines of `classes.txt` if it exists, else the numbers.
pub struct WebDataset;

impl List for WebDataset {
    fn list(&self, root: &Path, _: Split) -> Result<Listing> {
        let shards: Vec<_> = folder::entries(root)?.into_iter().filter(|(name, _)| name.ends_with(".tar")).collect();
        ensure!(!shards.is_empty(), "{} contains no shards (*.tar)", root.display());
        let mut images = vec![];
        for (name, path) in shards {
            let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            samples(&file, &path, &name, &mut images)?;
        }
        Ok(Listing { classes: class_names(root, &images)?, images })
    }
}

/// The two files of a sample.
#[derive(Default)]
struct Sample {
    image: Option<Member>,
    class: Option<Member>,
}

fn samples(file: &File, path: &Path, shard: &str, images: &mut Vec<Listed>) -> Result<()> {
    let length = file.metadata()?.len();
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    for member in archive::members(file, path, 0, length)? {
        let name = member.name.trim_start_matches("./").to_owned();
        let start = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[start..].find('.').map(|dot| start + dot) else { continue };
        if dot == start {
            continue; // A hidden file, such as those that macOS adds.
        }
        let key = inside(&name[..dot]).with_context(|| path.display().to_string())?;
        let sample = samples.entry(key.to_owned()).or_default();
        let place = match &name[dot + 1..] {
            "cls" => &mut sample.class,
            ending if !ending.contains('.') && folder::is_image(&name) => &mut sample.image,
            _ => continue,
        };
        ensure!(place.is_none(), "{}: sample '{key}' has two files {}", path.display(), member.name);
        *place = Some(member);
    }
    for (key, sample) in samples {
        let Some(image) = sample.image else { continue };
        let class = sample.class.context("has no class (.cls)").and_then(|class| read_class(file, &class));
        let class = class.with_context(|| format!("{}: sample '{key}'", path.display()))?;
        let within = Within { file: shard.to_owned(), offset: image.offset, bytes: image.bytes, planes: None };
        images.push(Listed {
            path: format!("{shard}/{}", image.name.trim_start_matches("./")),
            label: Label::One(class),
            within: Some(within),
        });
    }
    Ok(())
}

fn read_class(file: &File, member: &Member) -> Result<u32> {
    ensure!(member.bytes <= CLASS_MAX, "has a class of {} bytes, not a number", member.bytes);
    let mut text = vec![0; member.bytes as usize];
    file.read_exact_at(&mut text, member.offset)?;
    let text = String::from_utf8_lossy(&text);
    text.trim().parse().with_context(|| format!("has the class '{}', not a number from 0", text.trim()))
}

fn class_names(root: &Path, images: &[Listed]) -> Result<Vec<String>> {
    let names = root.join("classes.txt");
    if names.exists() {
        return numbered(&names);
    }
    let number = |image: &Listed| match image.label {
        Label::One(class) => class,
        Label::Several(_) => unreachable!("a sample has one class"),
    };
    let last = images.iter().map(number).max().unwrap_or(0);
    ensure!(last < 1 << 20, "a class has the number {last}; give their names in {}", names.display());
    Ok((0..=last).map(|class| class.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::{archive::tests::tar, *};

    #[test]
    fn samples_are_files_of_one_name() {
        let first = tar(&[
            ("./d/0001.cls", b"2\n"),
            ("./d/0001.seg.png", b"x"),
            ("./d/0001.jpg", b"ab"),
            ("note", b""),
            ("d/._0001.jpg", b"x"),
        ]);
        let second = tar(&[("0001.PNG", b"abc"), ("0001.cls", b"0"), ("0002.json", b"{}")]);
        let root = tree(&[("a-000.tar", &first), ("a-001.tar", &second)]);
        let listing = list(Format::WebDataset, None, root.path()).unwrap();
        assert_eq!(listing.classes, ["0", "1", "2"]);
        let [a, b] = &listing.images[..] else { panic!("{listing:?}") };
        assert_eq!((a.path.as_str(), &a.label), ("a-000.tar/d/0001.jpg", &Label::One(2)));
        let within = a.within.as_ref().unwrap();
        assert_eq!(&first[within.offset as usize..][..within.bytes as usize], b"ab");
        assert_eq!((b.path.as_str(), &b.label), ("a-001.tar/0001.PNG", &Label::One(0)));
        std::fs::write(root.path().join("classes.txt"), "cat\ndog\nowl\nfox\n").unwrap();
        assert_eq!(list(Format::WebDataset, None, root.path()).unwrap().classes.len(), 4);
    }

    #[test]
    fn damaged_shards_are_errors() {
        let error = |shard: &[u8]| refused(Format::WebDataset, Split::Train, &[("s.tar", shard)]);
        assert!(error(&tar(&[("1.jpg", b"x")])).contains("s.tar: sample '1': has no class"));
        assert!(error(&tar(&[("1.jpg", b"x"), ("1.cls", b"cat")])).contains("has the class 'cat'"));
        assert!(error(&tar(&[("1.jpg", b"x"), ("1.cls", &[b'1'; 99])])).contains("99 bytes"));
        assert!(error(&tar(&[("1.jpg", b"x"), ("1.png", b"x")])).contains("two files"));
        assert!(error(&tar(&[("1.jpg", b"x"), ("1.cls", b"999999999")])).contains("classes.txt"));
        assert!(error(&tar(&[("1.jpg", &[b'x'; 2000])])[..1000]).contains("s.tar"));
        assert!(refused(Format::WebDataset, Split::Train, &[("x", b"")]).contains("contains no shards"));
    }
}
