//! WebDataset: tar archives ("shards") that contain each image next to its class.

use super::*;
use crate::decode::EXTENSIONS;
use archive::Member;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt,
};

/// Maximum size of a class file, in bytes.
const CLASS_MAX: u64 = 64;
/// How many parts of a sample without an image are named.
const SHOWN: usize = 5;

/// Every `*.tar` of the folder, read in place. Files with the same name up to the first dot are one sample (`0001.jpg`,
/// `0001.cls`; github.com/webdataset/webdataset): the image, and the class as a number from 0 in text. Class names are
/// the lines of `classes.txt` if it exists, else the numbers.
///
/// A sample may have further parts (`0001.json`, `0001.seg.png`). A sample without an image is left out by name, and so
/// is each image whose name has a further dot (`v1.0.jpg`, `v1.0.cls`): by the convention it is a part of sample `v1`.
pub struct WebDataset;

impl List for WebDataset {
    fn list(&self, root: &Path, _: Split) -> Result<Listing> {
        let shards: Vec<_> = folder::entries(root)?.into_iter().filter(|(name, _)| name.ends_with(".tar")).collect();
        ensure!(!shards.is_empty(), "{} contains no shards (*.tar)", root.display());
        let mut listing = Listing::default();
        for (name, path) in shards {
            let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            samples(&file, &path, &name, &mut listing)?;
        }
        listing.classes = class_names(root, &listing.images)?;
        Ok(listing)
    }
}

/// The files of a sample.
#[derive(Default)]
struct Sample {
    image: Option<Member>,
    class: Option<Member>,
    /// What follows the first dot in the names of the others.
    parts: BTreeSet<String>,
}

impl Sample {
    /// Parts that are an image with a class of its own: a sample whose name has a dot.
    fn misnamed(&self) -> impl Iterator<Item = &String> {
        let class = |part: &str| part.rsplit_once('.').map(|(name, _)| format!("{name}.cls"));
        let has_class = move |part: &str| class(part).is_some_and(|class| self.parts.contains(&class));
        self.parts.iter().filter(move |part| folder::is_image(part) && has_class(part))
    }

    /// What of it is left out, and why; `key` is its name.
    fn left_out(&self, shard: &str, key: &str) -> Vec<Unreadable> {
        let misnamed = |part: &String| Unreadable {
            path: format!("{shard}/{key}.{part}"),
            unreadable: format!(
                "a sample's name ends at the first dot, so this is the part '{part}' of sample '{key}'; rename it to {}",
                format_args!("{key}_{}", renamed(part))
            ),
        };
        let mut left_out: Vec<Unreadable> = self.misnamed().map(misnamed).collect();
        if self.image.is_none() && left_out.is_empty() {
            let class = self.class.iter().map(|_| "cls");
            let parts = class.chain(self.parts.iter().map(String::as_str)).take(SHOWN).collect::<Vec<_>>().join(", ");
            let unreadable = format!("the sample has no image ({}), only: {parts}", EXTENSIONS.join(", "));
            left_out.push(Unreadable { path: format!("{shard}/{key}"), unreadable });
        }
        left_out
    }
}

/// A name without dots before its ending.
fn renamed(part: &str) -> String {
    part.rsplit_once('.').map_or(part.into(), |(name, ending)| format!("{}.{ending}", name.replace('.', "_")))
}

fn samples(file: &File, path: &Path, shard: &str, listing: &mut Listing) -> Result<()> {
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
            part if part.eq_ignore_ascii_case("cls") => &mut sample.class,
            ending if !ending.contains('.') && folder::is_image(&name) => &mut sample.image,
            part => {
                sample.parts.insert(part.to_owned());
                continue;
            }
        };
        ensure!(place.is_none(), "{}: sample '{key}' has two files {}", path.display(), member.name);
        *place = Some(member);
    }
    for (key, sample) in samples {
        listing.left_out.extend(sample.left_out(shard, &key));
        let Some(image) = sample.image else { continue };
        let class = sample.class.context("has no class (.cls)").and_then(|class| read_class(file, &class));
        let class = class.with_context(|| format!("{}: sample '{key}'", path.display()))?;
        let within = Within { file: shard.to_owned(), offset: image.offset, bytes: image.bytes, planes: None };
        listing.images.push(Listed {
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
        let second = tar(&[("0001.PNG", b"abc"), ("0001.cls", b"0"), ("0001.json", b"{}")]);
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
    fn no_sample_is_dropped_silently() {
        let dots = |i: u8| [(format!("v1.{i}.jpg"), vec![i]), (format!("v1.{i}.cls"), b"1".to_vec())];
        let files: Vec<(String, Vec<u8>)> = (0..3).flat_map(dots).collect();
        let mut members: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        // A part of a sample that has an image, and samples that have none.
        members.extend([("7.jpg", &b"x"[..]), ("7.cls", b"0"), ("7.seg.png", b"x"), ("8.gif", b"x"), ("8.cls", b"1")]);
        members.push(("d/9.json", b"{}"));
        let root = tree(&[("s.tar", &tar(&members))]);
        let listing = list(Format::WebDataset, None, root.path()).unwrap();
        let images: Vec<&str> = listing.images.iter().map(|image| image.path.as_str()).collect();
        assert_eq!(images, ["s.tar/7.jpg"]);
        let left: Vec<&str> = listing.left_out.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(left, ["s.tar/8", "s.tar/d/9", "s.tar/v1.0.jpg", "s.tar/v1.1.jpg", "s.tar/v1.2.jpg"]);
        let why = |i: usize| &listing.left_out[i].unreadable;
        assert!(why(0).ends_with("only: cls, gif") && why(1).ends_with("only: json"), "{} {}", why(0), why(1));
        assert!(why(2).contains("the part '0.jpg' of sample 'v1'; rename it to v1_0.jpg"), "{}", why(2));
        let (_, unreadable) = crate::index::build(root.path(), listing, |_, _| ());
        let error = format!("{:#}", crate::index::refuse(&unreadable).unwrap_err());
        assert!(error.contains("s.tar/v1.1.jpg: a sample's name ends at the first dot"), "{error}");
        let alone = refused(Format::WebDataset, Split::Train, &[("s.tar", &tar(&members[..6]))]);
        assert!(alone.contains("lists no images; 3 cannot be used, the first: s.tar/v1.0.jpg"), "{alone}");
        // Beside a sample of the shorter name, too.
        members.extend([("v1.jpg", &b"x"[..]), ("v1.cls", b"0")]);
        let listing = list(Format::WebDataset, None, tree(&[("s.tar", &tar(&members))]).path()).unwrap();
        assert_eq!((listing.images.len(), listing.left_out.len()), (2, 5));
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
