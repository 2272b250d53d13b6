//! Sets labelled by folder: ImageFolder, and Caltech-101 in that layout.

use super::*;
use crate::decode::EXTENSIONS;
use caco_measure::rng::Rng;
use std::collections::BTreeMap;

/// Deeper nesting is treated as a loop of symbolic links.
const DEEPEST: usize = 32;
/// Training images per class of Caltech-101, by its protocol (Fei-Fei et al. 2004).
const CALTECH_TRAIN: usize = 30;

/// `<class>/…/<image>`, as torchvision's ImageFolder reads it: classes are numbered in the byte order of their names.
pub struct ImageFolder;

impl List for ImageFolder {
    fn list(&self, root: &Path, _: Split) -> Result<Listing> {
        let (classes, mut left_out) = classes(root)?;
        let mut images = vec![];
        for (label, class) in classes.iter().enumerate() {
            let mut found = Found::default();
            collect(&root.join(class), class, DEEPEST, &mut found)?;
            // The class keeps its number, so that sets that were split by folder agree.
            if found.images.is_empty() {
                let why = format!("the class folder contains no images ({})", EXTENSIONS.join(", "));
                left_out.push(Unreadable { path: class.clone(), unreadable: why });
            }
            images.extend(found.images.into_iter().map(|path| image(path, label as u32)));
            left_out.extend(found.left_out);
        }
        Ok(Listing { classes, images, left_out })
    }
}

/// Caltech-101 (Fei-Fei et al. 2004): class folders, including the background class. It defines no splits: 30 randomly
/// drawn images of each class are for training, all others for testing.
pub struct Caltech101;

impl List for Caltech101 {
    fn list(&self, root: &Path, split: Split) -> Result<Listing> {
        let folders =
            ["101_ObjectCategories", "caltech-101/101_ObjectCategories", "caltech101/101_ObjectCategories", "."];
        let base = one_of(root, &folders)?;
        let prefix = Some(below(root, &base)?).filter(|at| !at.is_empty()).map_or(String::new(), |at| at + "/");
        let all = ImageFolder.list(&base, split)?;
        let mut by_class: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for listed in all.images {
            let Label::One(class) = listed.label else { unreachable!("a folder is one class") };
            by_class.entry(class).or_default().push(listed.path);
        }
        let mut images = vec![];
        for (class, mut paths) in by_class {
            let name = &all.classes[class as usize];
            let enough = paths.len() > CALTECH_TRAIN;
            ensure!(enough, "class '{name}' has {} images; more than {CALTECH_TRAIN} are needed", paths.len());
            paths.sort();
            // The draw for a class depends only on its number and its images' names.
            Rng::new(0, "caltech101", 0, u64::from(class)).shuffle(&mut paths);
            let kept = match split {
                Split::Train => &paths[..CALTECH_TRAIN],
                _ => &paths[CALTECH_TRAIN..],
            };
            images.extend(kept.iter().map(|path| image(format!("{prefix}{path}"), class)));
        }
        let left_out = all.left_out.into_iter();
        let left_out = left_out.map(|file| Unreadable { path: format!("{prefix}{}", file.path), ..file }).collect();
        Ok(Listing { classes: all.classes, images, left_out })
    }
}

/// The images anywhere below a folder, whatever its layout; all are of one class, called `image`.
pub fn flat(root: &Path) -> Result<Listing> {
    let mut found = Found::default();
    collect(root, "", DEEPEST, &mut found)?;
    let Found { mut images, left_out } = found;
    let none = || format!("{} contains no images ({})", root.display(), EXTENSIONS.join(", "));
    ensure!(!images.is_empty(), "{}{}", none(), instead(&left_out));
    images.sort();
    let images = images.into_iter().map(|path| image(path, 0)).collect();
    Ok(Listing { classes: vec!["image".into()], images, left_out })
}

/// Class folders, in the byte order of their names, and links that may have been class folders.
fn classes(root: &Path) -> Result<(Vec<String>, Vec<Unreadable>)> {
    let (mut classes, mut left_out) = (vec![], vec![]);
    for (name, path) in entries(root)? {
        match is_folder(&path) {
            Ok(true) => classes.push(name),
            Ok(false) => {}
            Err(unreadable) => left_out.push(Unreadable { path: name, unreadable }),
        }
    }
    let none = || format!("{} contains no class folders; the layout is <class>/<image>", root.display());
    ensure!(!classes.is_empty(), "{}{}", none(), instead(&left_out));
    Ok((classes, left_out))
}

/// What is below a folder: paths of images, and what cannot be followed.
#[derive(Default)]
struct Found {
    images: Vec<String>,
    left_out: Vec<Unreadable>,
}

fn collect(folder: &Path, prefix: &str, depth: usize, found: &mut Found) -> Result<()> {
    ensure!(depth > 0, "{} is nested {DEEPEST} folders deep; is it a loop of symbolic links?", folder.display());
    for (name, path) in entries(folder)? {
        let relative = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        match is_folder(&path) {
            Ok(true) => collect(&path, &relative, depth - 1, found)?,
            Ok(false) if is_image(&name) => found.images.push(relative),
            Ok(false) => {}
            Err(unreadable) => found.left_out.push(Unreadable { path: relative, unreadable }),
        }
    }
    Ok(())
}

/// Whether a path is a folder, through links; the error says why a link leads nowhere.
fn is_folder(path: &Path) -> Result<bool, String> {
    let error = match fs::metadata(path) {
        Ok(found) => return Ok(found.is_dir()),
        Err(error) => error,
    };
    match fs::read_link(path) {
        Ok(target) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("a link to {}, which does not exist", target.display()))
        }
        _ => Err(error.to_string()),
    }
}

/// Whether a file of this name counts as an image.
pub fn is_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| EXTENSIONS.contains(&ending.to_ascii_lowercase().as_str()))
}

/// The names in a folder, sorted.
pub fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let Ok(name) = entry.file_name().into_string() else {
            bail!("{} has a name that is not UTF-8; rename it", entry.path().display())
        };
        found.push((name, entry.path()));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;

    #[test]
    fn images_are_labelled_by_folder() {
        let files = ["b/2.JPG", "b/1.jpeg", "B/x.jpg", "a-b/deep/3.jpg", "b/notes.txt"].map(|path| (path, &b""[..]));
        let root = tree(&files);
        let expected = [("B/x.jpg", "B"), ("a-b/deep/3.jpg", "a-b"), ("b/1.jpeg", "b"), ("b/2.JPG", "b")];
        let expected = expected.map(|(path, class)| (path.to_owned(), class.to_owned()));
        assert_eq!(listed(Format::ImageFolder, Split::Train, root.path()), expected);
    }

    #[test]
    fn folders_without_images_are_errors() {
        let error = |files: &[(&str, &[u8])]| refused(Format::ImageFolder, Split::Train, files);
        assert!(error(&[]).contains("no class folders"));
        let empty = error(&[("a/x.txt", b"")]);
        assert!(empty.contains("lists no images; 1 cannot be used, the first: a: the class folder"), "{empty}");
        let missing = format!("{:#}", list(Format::ImageFolder, None, Path::new("/nowhere")).unwrap_err());
        assert!(missing.contains("/nowhere is not a folder"), "{missing}");
    }

    #[test]
    fn an_empty_class_is_left_out_and_keeps_its_number() {
        let root = tree(&[("a/x.jpg", b""), ("b/x.txt", b""), ("c/y.jpg", b"")]);
        let listing = list(Format::ImageFolder, None, root.path()).unwrap();
        assert_eq!((listing.classes.len(), &listing.images[1].label), (3, &Label::One(2)));
        let [left] = &listing.left_out[..] else { panic!("{:?}", listing.left_out) };
        assert!(left.path == "b" && left.unreadable.contains("contains no images"), "{left:?}");
    }

    #[cfg(unix)]
    #[test]
    fn broken_links_are_left_out() {
        let root = tree(&[("val/a/x.jpg", b"")]);
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.path().join("val").join(at)).unwrap();
        link("/nowhere/y.jpg", "a/y.jpg");
        link("/nowhere/deep", "a/deep");
        link("gone", "b");
        link("itself", "itself");
        let left = |listing: &Listing| -> Vec<String> { listing.left_out.iter().map(|l| l.path.clone()).collect() };
        let listing = list(Format::ImageFolder, None, &root.path().join("val")).unwrap();
        assert_eq!((listing.images.len(), listing.classes.len()), (1, 1));
        assert_eq!(left(&listing), ["b", "itself", "a/deep", "a/y.jpg"]);
        assert_eq!(listing.left_out[0].unreadable, "a link to gone, which does not exist");
        let listing = list(Format::ImageNet, Some(Split::Val), root.path()).unwrap();
        assert_eq!(left(&listing), ["val/b", "val/itself", "val/a/deep", "val/a/y.jpg"]);
        let alone = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("gone", alone.path().join("a")).unwrap();
        let error = format!("{:#}", list(Format::ImageFolder, None, alone.path()).unwrap_err());
        assert!(error.contains("no class folders") && error.contains("a link to gone"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_are_errors() {
        let (root, aside) = (tempfile::tempdir().unwrap(), tree(&[("1.jpg", b"")]));
        std::os::unix::fs::symlink(aside.path(), root.path().join("a")).unwrap();
        assert_eq!(listed(Format::ImageFolder, Split::Train, root.path())[0].0, "a/1.jpg");
        ["x", "y"].iter().for_each(|name| std::os::unix::fs::symlink(".", aside.path().join(name)).unwrap());
        let error = list(Format::ImageFolder, None, root.path()).unwrap_err();
        assert!(format!("{error:#}").contains("loop of symbolic links"));
    }

    #[test]
    fn a_folder_of_any_layout_is_listed() {
        let root = tree(&["z.jpg", "b/deep/1.jpeg", "a/x.jpg"].map(|path| (path, &b""[..])));
        let listing = flat(root.path()).unwrap();
        let paths: Vec<&str> = listing.images.iter().map(|image| image.path.as_str()).collect();
        assert_eq!((paths.as_slice(), listing.classes.len()), (&["a/x.jpg", "b/deep/1.jpeg", "z.jpg"][..], 1));
        assert!(format!("{:#}", flat(tree(&[]).path()).unwrap_err()).contains("contains no images"));
    }

    #[test]
    fn thirty_images_a_class_are_for_training() {
        let name = |class: &str, i: usize| format!("101_ObjectCategories/{class}/image_{i:04}.jpg");
        let names: Vec<String> =
            (1..=31).map(|i| name("ant", i)).chain((1..=40).map(|i| name("yin_yang", i))).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let root = tree(&files);
        let train = listed(Format::Caltech101, Split::Train, root.path());
        let test = listed(Format::Caltech101, Split::Test, root.path());
        assert_eq!((train.len(), test.len()), (60, 11));
        let mut all: Vec<String> = train.iter().chain(&test).map(|(path, _)| path.clone()).collect();
        all.sort();
        assert_eq!(all, names);
        assert_ne!(
            train[..30].iter().map(|(path, _)| path).collect::<Vec<_>>(),
            names[..30].iter().collect::<Vec<_>>()
        );
        let inner = root.path().join("101_ObjectCategories");
        let within: Vec<String> = listed(Format::Caltech101, Split::Test, &inner).into_iter().map(|(p, _)| p).collect();
        assert_eq!(within, test.iter().map(|(p, _)| p["101_ObjectCategories/".len()..].to_owned()).collect::<Vec<_>>());
        assert!(refused(Format::Caltech101, Split::Test, &files[..30]).contains("has 30 images"));
    }
}
