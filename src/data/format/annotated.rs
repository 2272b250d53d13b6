//! Sets whose annotations are text: Food-101, SUN397, FGVC Aircraft, DTD, Oxford-IIIT Pets.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Food-101 (Bossard et al. 2014): `meta/train.json` and `meta/test.json`, class → images.
pub struct Food101;

impl List for Food101 {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let base = base(root, "food-101", "meta")?;
        let file = base.join(if split == Split::Train { "meta/train.json" } else { "meta/test.json" });
        let classes: BTreeMap<String, Vec<String>> = serde_json::from_slice(&read(&file, ANNOTATIONS_MAX)?)
            .with_context(|| format!("{} is damaged", file.display()))?;
        let mut images = vec![];
        for (class, names) in classes.values().enumerate() {
            for name in names {
                let name = inside(name).with_context(|| file.display().to_string())?;
                images.push(image(below(root, &base.join("images").join(format!("{name}.jpg")))?, class as u32));
            }
        }
        Ok(Listing { classes: classes.into_keys().collect(), images, left_out: vec![] })
    }
}

/// SUN397 (Xiao et al. 2010), the first of its ten partitions: `ClassName.txt`, `Training_01.txt` and `Testing_01.txt`.
pub struct Sun397;

impl List for Sun397 {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let base = base(root, "SUN397", "a")?;
        let partition = if split == Split::Train { "Training_01.txt" } else { "Testing_01.txt" };
        let places = ["", "SUN397/", "Partitions/", "SUN397/Partitions/"];
        let find = |name: &str| one_of(root, &places.map(|place| format!("{place}{name}")).each_ref().map(|s| &**s));
        let (names, file) = (find("ClassName.txt")?, find(partition)?);
        let classes = numbered(&names)?;
        let numbers: BTreeMap<&str, u32> =
            classes.iter().zip(0..).map(|(class, number)| (class.as_str(), number)).collect();
        let mut images = vec![];
        for (number, line) in lines(&file)? {
            let class = line.rsplit_once('/').and_then(|(class, _)| numbers.get(class));
            let class = class.with_context(|| format!("'{line}' is in none of the classes in {}", names.display()));
            let path = line.strip_prefix('/').context("a line starts with '/'").and_then(inside);
            let (class, path) = (at(&file, number, class)?, at(&file, number, path)?);
            images.push(image(below(root, &base.join(path))?, *class));
        }
        // `/a/abbey` is the class `abbey`; a deeper path (`/c/church/indoor`) keeps both names.
        let name = |class: &String| class.splitn(3, '/').last().unwrap_or_default().to_owned();
        Ok(Listing { classes: classes.iter().map(name).collect(), images, left_out: vec![] })
    }
}

/// FGVC Aircraft (Maji et al. 2013), labelled by variant: `images_variant_<split>.txt`, `variants.txt`. Names hold spaces
/// and slashes.
pub struct FgvcAircraft;

impl List for FgvcAircraft {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let folders = ["data", ".", "fgvc-aircraft-2013b/data"];
        let base = one_of(root, &folders.map(|f| format!("{f}/variants.txt")).each_ref().map(|s| &**s))?;
        let base = base.parent().context("a file has a folder")?.to_path_buf();
        let classes = numbered(&base.join("variants.txt"))?;
        let file = base.join(format!("images_variant_{}.txt", split.name()));
        let mut images = vec![];
        for (number, line) in lines(&file)? {
            let parts = line.split_once(' ').context("a line is an image and its variant");
            let (name, variant) = at(&file, number, parts)?;
            let class = classes.iter().position(|class| class == variant);
            let class = class.with_context(|| format!("'{variant}' is not one of the variants in variants.txt"));
            let (class, name) = (at(&file, number, class)?, at(&file, number, inside(name))?);
            images.push(image(below(root, &base.join("images").join(format!("{name}.jpg")))?, class as u32));
        }
        Ok(Listing { classes, images, left_out: vec![] })
    }
}

/// The Describable Textures Dataset (Cimpoi et al. 2014), split 1: `labels/<split>1.txt`, `images/<class>/*`.
pub struct Dtd;

impl List for Dtd {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let base = base(root, "dtd", "labels")?;
        let all = ["train", "val", "test"];
        let mut parts = BTreeMap::new();
        for part in all {
            let file = base.join(format!("labels/{part}1.txt"));
            let mut read = vec![];
            for (number, line) in lines(&file)? {
                let path = inside(&line).and_then(|path| path.split_once('/').context("a line is <class>/<image>"));
                let (class, _) = at(&file, number, path)?;
                read.push((class.to_owned(), line.clone()));
            }
            parts.insert(part, read);
        }
        let classes: BTreeSet<&String> = parts.values().flatten().map(|(class, _)| class).collect();
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        let wanted: &[&str] = match split {
            Split::TrainVal => &all[..2],
            Split::Train => &all[..1],
            Split::Val => &all[1..2],
            Split::Test => &all[2..],
        };
        let mut images = vec![];
        for (class, path) in wanted.iter().flat_map(|part| &parts[part]) {
            let number = classes.binary_search(class).expect("every class was collected");
            images.push(image(below(root, &base.join("images").join(path))?, number as u32));
        }
        Ok(Listing { classes, images, left_out: vec![] })
    }
}

/// Oxford-IIIT Pets (Parkhi et al. 2012), labelled by breed: `annotations/trainval.txt` and `test.txt`, each line an
/// image, its class from 1, and two more numbers.
pub struct OxfordPets;

impl List for OxfordPets {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let base = base(root, "oxford-iiit-pet", "annotations")?;
        let file = base.join("annotations").join(if split == Split::Test { "test.txt" } else { "trainval.txt" });
        let (mut names, mut images) = (BTreeMap::new(), vec![]);
        for (number, line) in lines(&file)?.into_iter().filter(|(_, line)| !line.starts_with('#')) {
            let (class, breed, path) = at(&file, number, pet(&line))?;
            let known: &mut String = names.entry(class).or_insert_with(|| breed.to_owned());
            let message = format!("class {class} is '{breed}' here and '{known}' in an earlier line");
            at(&file, number, if known == breed { Ok(()) } else { Err(anyhow::anyhow!(message)) })?;
            images.push(image(below(root, &base.join("images").join(format!("{path}.jpg")))?, class - 1));
        }
        let last = names.keys().last().copied().unwrap_or(0) as usize;
        ensure!(last == names.len(), "{} names {} classes, the highest is {last}", file.display(), names.len());
        Ok(Listing { classes: names.into_values().collect(), images, left_out: vec![] })
    }
}

/// Class number, breed and image of a line such as `great_pyrenees_12 16 2 9`.
fn pet(line: &str) -> Result<(u32, &str, &str)> {
    let mut words = line.split_whitespace();
    let (name, class) = words.next().zip(words.next()).context("a line is an image and its class")?;
    let class: u32 = class.parse().with_context(|| format!("the class is '{class}', not a number"))?;
    ensure!((1..=10_000).contains(&class), "the class is {class}; classes are numbered from 1");
    let (breed, _) = name.rsplit_once('_').context("an image is called <breed>_<number>")?;
    Ok((class, breed, inside(name)?))
}

/// The folder that holds `sign`: the root, or `name` in it.
fn base(root: &Path, name: &str, sign: &str) -> Result<PathBuf> {
    let found = one_of(root, &[sign, &format!("{name}/{sign}")])?;
    Ok(found.parent().context("a path has a folder")?.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(path, class)| (path.to_string(), class.to_string())).collect()
    }

    #[test]
    fn food() {
        let meta = |name: &str| format!("food-101/meta/{name}.json");
        let (train, test) = (meta("train"), meta("test"));
        let train_json = br#"{"waffles": ["waffles/9"], "apple_pie": ["apple_pie/2", "apple_pie/1"]}"#;
        let files: [(&str, &[u8]); 2] =
            [(&train, train_json), (&test, br#"{"apple_pie": ["apple_pie/3"], "waffles": []}"#)];
        let root = tree(&files);
        let images = "food-101/images";
        assert_eq!(
            listed(Format::Food101, Split::Train, root.path()),
            pairs(&[
                (&format!("{images}/apple_pie/1.jpg"), "apple_pie"),
                (&format!("{images}/apple_pie/2.jpg"), "apple_pie"),
                (&format!("{images}/waffles/9.jpg"), "waffles")
            ])
        );
        assert_eq!(listed(Format::Food101, Split::Test, root.path()).len(), 1);
        let error = |json: &[u8]| refused(Format::Food101, Split::Train, &[("meta/train.json", json)]);
        assert!(error(br#"{"a": ["../../x"]}"#).contains("leaves the folder"));
        assert!(error(br#"{"a": ["a/1""#).contains("train.json is damaged"));
        assert!(error(br#"{"a": ["a/1", "a/1"]}"#).contains("listed twice"));
        assert!(error(b"{}").contains("lists no image"));
        assert!(refused(Format::Food101, Split::Train, &[("x", b"")]).contains("contains none of these: meta"));
    }

    #[test]
    fn sun() {
        let root = tree(&[
            ("SUN397/a/abbey/sun_b.jpg", b""),
            ("Partitions/ClassName.txt", b"/a/abbey\n/c/church/indoor\n"),
            ("Partitions/Training_01.txt", b"/c/church/indoor/sun_a.jpg\n/a/abbey/sun_b.jpg\n"),
            ("Partitions/Testing_01.txt", b"/a/abbey/sun_c.jpg\r\n"),
        ]);
        let expected = [("SUN397/a/abbey/sun_b.jpg", "abbey"), ("SUN397/c/church/indoor/sun_a.jpg", "church/indoor")];
        assert_eq!(listed(Format::Sun397, Split::Train, root.path()), pairs(&expected));
        assert_eq!(listed(Format::Sun397, Split::Test, root.path()), pairs(&[("SUN397/a/abbey/sun_c.jpg", "abbey")]));
        let error = |line: &[u8]| {
            refused(
                Format::Sun397,
                Split::Train,
                &[("a/x", b""), ("ClassName.txt", b"/a/abbey"), ("Training_01.txt", line)],
            )
        };
        assert!(error(b"/a/abbey/1.jpg\n/b/bar/1.jpg").contains("line 2: '/b/bar/1.jpg' is in none of the classes"));
        assert!(error(b"/a/abbey/").contains("leaves the folder"));
    }

    #[test]
    fn aircraft() {
        let root = tree(&[
            ("data/variants.txt", b"707-320\nF/A-18\nDash 8 300\n"),
            ("data/images_variant_train.txt", b"1025794 Dash 8 300\n1340192 F/A-18\n"),
            ("data/images_variant_trainval.txt", b"1025794 Dash 8 300\n1340192 F/A-18\n0056978 707-320\n"),
        ]);
        let train = [("data/images/1025794.jpg", "Dash 8 300"), ("data/images/1340192.jpg", "F/A-18")];
        assert_eq!(listed(Format::FgvcAircraft, Split::Train, root.path()), pairs(&train));
        assert_eq!(listed(Format::FgvcAircraft, Split::TrainVal, root.path()).len(), 3);
        let inner = root.path().join("data");
        assert_eq!(listed(Format::FgvcAircraft, Split::Train, &inner)[0].0, "images/1025794.jpg");
        let error = |line: &[u8]| {
            refused(Format::FgvcAircraft, Split::Test, &[("variants.txt", b"A 3"), ("images_variant_test.txt", line)])
        };
        assert!(error(b"1 A 3\n2 A 4").contains("line 2: 'A 4' is not one of the variants"));
        assert!(error(b"1\n").contains("line 1: a line is an image and its variant"));
        assert!(error(b"../1 A 3\n").contains("leaves the folder"));
    }

    #[test]
    fn textures() {
        let root = tree(&[
            ("labels/train1.txt", b"banded/banded_0002.jpg\nzigzagged/z_1.jpg\n"),
            ("labels/val1.txt", b"banded/banded_0003.jpg\n"),
            ("labels/test1.txt", b"dotted/d_1.jpg\n"),
        ]);
        let val = [("images/banded/banded_0003.jpg", "banded")];
        assert_eq!(listed(Format::Dtd, Split::Val, root.path()), pairs(&val));
        assert_eq!(listed(Format::Dtd, Split::TrainVal, root.path()).len(), 3);
        // Numbers come from all three files, so that splits agree.
        let listing = list(Format::Dtd, Some(Split::Test), root.path()).unwrap();
        assert_eq!((listing.classes.len(), &listing.images[0].label), (3, &Label::One(1)));
        assert!(refused(Format::Dtd, Split::Val, &[("labels/train1.txt", b"x.jpg")]).contains("<class>/<image>"));
    }

    #[test]
    fn pets() {
        let annotations = b"#Image CLASS-ID SPECIES BREED\ngreat_pyrenees_12 2 2 9\nAbyssinian_1 1 1 1\n";
        let root = tree(&[("annotations/trainval.txt", annotations)]);
        let expected = [("images/Abyssinian_1.jpg", "Abyssinian"), ("images/great_pyrenees_12.jpg", "great_pyrenees")];
        assert_eq!(listed(Format::OxfordPets, Split::TrainVal, root.path()), pairs(&expected));
        let error = |lines: &[u8]| refused(Format::OxfordPets, Split::Test, &[("annotations/test.txt", lines)]);
        assert!(error(b"a_1 1 1 1\nb_1 1 1 1\n").contains("line 2: class 1 is 'b' here and 'a' in an earlier line"));
        assert!(error(b"a_1 0 1 1\n").contains("numbered from 1"));
        assert!(error(b"a_1 2 1 1\n").contains("names 1 classes, the highest is 2"));
        assert!(error(b"a_1 x 1 1\n").contains("'x', not a number"));
    }
}
