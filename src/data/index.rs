//! Making an index: every image of a folder in the ImageFolder layout is read, decoded and digested, in parallel.

use super::{
    dataset::{Dataset, Image, Unreadable},
    decode::Decoder,
    raster::Raster,
};
use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Endings of files that count as images, as torchvision's ImageFolder has them.
const ENDINGS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];
/// Folders nested deeper than this are taken for a loop of symbolic links.
const DEEPEST: usize = 32;
/// How many unreadable files an error lists.
const LISTED: usize = 20;

/// Indexes a folder. Every image is decoded whole: a header alone does not show a truncated file. Unreadable files are
/// returned beside the index; `progress` is called with images done and in all.
pub fn build(root: &Path, progress: impl Fn(u64, u64) + Sync) -> Result<(Dataset, Vec<Unreadable>)> {
    let classes = classes(root)?;
    let mut files: Vec<(u32, String)> = vec![];
    for (label, class) in classes.iter().enumerate() {
        let before = files.len();
        collect(&root.join(class), class, label as u32, DEEPEST, &mut files)?;
        ensure!(
            files.len() > before,
            "class folder {} holds no image ({})",
            root.join(class).display(),
            ENDINGS.join(", ")
        );
    }
    Ok(read_all(root, classes, files, progress))
}

/// Reads files, each a label and a path, in the order of the paths.
fn read_all(
    root: &Path,
    classes: Vec<String>,
    mut files: Vec<(u32, String)>,
    progress: impl Fn(u64, u64) + Sync,
) -> (Dataset, Vec<Unreadable>) {
    files.sort_by(|a, b| a.1.cmp(&b.1));
    let (done, total) = (AtomicU64::new(0), files.len() as u64);
    let read = |decoder: &mut (Decoder, Raster), (label, path): (u32, String)| {
        let image = read(root, &path, label, decoder);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        image.map_err(|error| Unreadable { path, unreadable: format!("{error:#}") })
    };
    let (images, unreadable) =
        files.into_par_iter().map_init(Default::default, read).partition_map(|image| match image {
            Ok(image) => rayon::iter::Either::Left(image),
            Err(unreadable) => rayon::iter::Either::Right(unreadable),
        });
    (Dataset { root: root.into(), classes, images }, unreadable)
}

/// The images anywhere below a folder, whatever its layout, sorted by path; all are of one class, called `image`.
pub fn flat(root: &Path, progress: impl Fn(u64, u64) + Sync) -> Result<(Dataset, Vec<Unreadable>)> {
    let mut files = vec![];
    collect(root, "", 0, DEEPEST, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no image ({})", root.display(), ENDINGS.join(", "));
    Ok(read_all(root, vec!["image".into()], files, progress))
}

/// The error that names all unreadable files, up to a bound.
pub fn refuse(unreadable: &[Unreadable]) -> Result<()> {
    if unreadable.is_empty() {
        return Ok(());
    }
    let listed: String = unreadable.iter().take(LISTED).map(|u| format!("\n  {}: {}", u.path, u.unreadable)).collect();
    let more = unreadable.len().saturating_sub(LISTED);
    let more = if more > 0 { format!("\n  … and {more} more") } else { String::new() };
    bail!(
        "{} image(s) cannot be read; mend or remove them, or write `unreadable: LeaveOut` in the pipeline:{listed}{more}",
        unreadable.len()
    )
}

/// Class folders, in the byte order of their names.
fn classes(root: &Path) -> Result<Vec<String>> {
    let mut classes = vec![];
    for (name, path) in entries(root)? {
        if path.is_dir() {
            classes.push(name);
        }
    }
    ensure!(!classes.is_empty(), "{} holds no class folders; the layout is <class>/<image>", root.display());
    Ok(classes)
}

fn collect(folder: &Path, prefix: &str, label: u32, depth: usize, files: &mut Vec<(u32, String)>) -> Result<()> {
    ensure!(depth > 0, "{} lies {DEEPEST} folders deep; is it a loop of symbolic links?", folder.display());
    for (name, path) in entries(folder)? {
        let relative = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if path.is_dir() {
            collect(&path, &relative, label, depth - 1, files)?;
        } else if name
            .rsplit_once('.')
            .is_some_and(|(_, ending)| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
        {
            files.push((label, relative));
        }
    }
    Ok(())
}

/// The names in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
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

fn read(root: &Path, path: &str, label: u32, (decoder, raster): &mut (Decoder, Raster)) -> Result<Image> {
    let bytes = fs::read(root.join(path)).context("cannot be opened")?;
    decoder.decode(&bytes, raster)?;
    let size = (raster.width as u32, raster.height as u32);
    Ok(Image {
        path: path.into(),
        label,
        shows: None,
        size,
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        jpeg_encoder::Encoder::new_file(path, 90)
            .unwrap()
            .encode(&[128; 5 * 4 * 3], 5, 4, jpeg_encoder::ColorType::Rgb)
            .unwrap();
    }

    #[test]
    fn images_are_listed_by_path_and_labelled_by_folder() {
        let root = tempfile::tempdir().unwrap();
        ["b/2.JPG", "b/1.jpeg", "B/x.jpg", "a-b/deep/3.jpg"].iter().for_each(|p| jpeg(&root.path().join(p)));
        fs::write(root.path().join("b/notes.txt"), "no image").unwrap();
        let (set, unreadable) = build(root.path(), |_, _| ()).unwrap();
        assert!(unreadable.is_empty());
        assert_eq!(set.classes, ["B", "a-b", "b"]);
        let listed: Vec<(&str, u32, (u32, u32))> =
            set.images.iter().map(|i| (i.path.as_str(), i.label, i.size)).collect();
        assert_eq!(
            listed,
            [("B/x.jpg", 0, (5, 4)), ("a-b/deep/3.jpg", 1, (5, 4)), ("b/1.jpeg", 2, (5, 4)), ("b/2.JPG", 2, (5, 4))]
        );
    }

    #[test]
    fn every_unreadable_image_is_named() {
        let root = tempfile::tempdir().unwrap();
        ["a/1.jpg", "a/2.jpg", "a/3.jpg"].iter().for_each(|p| jpeg(&root.path().join(p)));
        let whole = fs::read(root.path().join("a/2.jpg")).unwrap();
        fs::write(root.path().join("a/2.jpg"), &whole[..whole.len() - 20]).unwrap();
        fs::write(root.path().join("a/3.jpg"), "text").unwrap();
        let (set, unreadable) = build(root.path(), |_, _| ()).unwrap();
        assert_eq!(set.images.len(), 1);
        let error = format!("{:#}", refuse(&unreadable).unwrap_err());
        assert!(error.contains("2 image(s)") && error.contains("a/2.jpg") && error.contains("a/3.jpg"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_told() {
        let (root, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        jpeg(&aside.path().join("1.jpg"));
        std::os::unix::fs::symlink(aside.path(), root.path().join("a")).unwrap();
        assert_eq!(build(root.path(), |_, _| ()).unwrap().0.images[0].path, "a/1.jpg");
        ["x", "y"].iter().for_each(|name| std::os::unix::fs::symlink(".", aside.path().join(name)).unwrap());
        assert!(format!("{:#}", build(root.path(), |_, _| ()).unwrap_err()).contains("loop of symbolic links"));
    }

    #[test]
    fn a_folder_of_any_layout_is_listed() {
        let root = tempfile::tempdir().unwrap();
        ["z.jpg", "b/deep/1.jpeg", "a/x.jpg"].iter().for_each(|p| jpeg(&root.path().join(p)));
        let (set, _) = flat(root.path(), |_, _| ()).unwrap();
        let listed: Vec<&str> = set.images.iter().map(|image| image.path.as_str()).collect();
        assert_eq!(listed, ["a/x.jpg", "b/deep/1.jpeg", "z.jpg"]);
        assert_eq!(set.classes, ["image"]);
        let empty = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", flat(empty.path(), |_, _| ()).unwrap_err()).contains("holds no image"));
    }

    #[test]
    fn an_empty_folder_is_told() {
        let root = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", build(root.path(), |_, _| ()).unwrap_err()).contains("no class folders"));
        fs::create_dir(root.path().join("a")).unwrap();
        assert!(format!("{:#}", build(root.path(), |_, _| ()).unwrap_err()).contains("holds no image"));
    }
}
