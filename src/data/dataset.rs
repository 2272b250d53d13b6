//! A list of images with their labels, and its file format: one JSON line for the header, then one per image.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The version of the index format.
const FORMAT: u32 = 1;

/// A labelled set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The folder that the paths are relative to.
    pub root: PathBuf,
    /// Class names, by number.
    pub classes: Vec<String>,
    /// The readable images, sorted by path; a sample's number is its position here.
    pub images: Vec<Image>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Relative to the folder, parts separated by `/`.
    pub path: String,
    /// The number of its class.
    pub label: u32,
    /// In a multi-label set, whose images can show several classes or none: the numbers of all classes it shows,
    /// ascending. `label` is then unused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows: Option<Vec<u32>>,
    /// Width and height, in pixels.
    pub size: (u32, u32),
    /// Length of the file, or of the image's part of a file.
    pub bytes: u64,
    /// BLAKE3 of these bytes, in hexadecimal.
    pub blake3: String,
    /// The image's location, if it is not in its own file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
}

/// The part of a larger file that holds an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Within {
    /// The file, relative to the folder.
    pub file: String,
    /// Offset of the image in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// For raw pixels: width and height. The bytes are three planes, red, green and blue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planes: Option<(u32, u32)>,
}

/// A file that cannot be decoded or listed and was left out, or a class without images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Relative to the folder.
    pub path: String,
    /// Why.
    pub unreadable: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    classes: Vec<String>,
    images: usize,
}

impl Dataset {
    /// Reads an index of the folder `root`.
    pub fn open(index: &Path, root: &Path) -> Result<Dataset> {
        let text = fs::read_to_string(index).with_context(|| format!("cannot read the index {}", index.display()))?;
        Self::parse(&text, root).with_context(|| format!("the index {} is damaged", index.display()))
    }

    fn parse(text: &str, root: &Path) -> Result<Dataset> {
        let mut lines = text.lines();
        let header: Header =
            serde_json::from_str(lines.next().unwrap_or_default()).context("line 1 is not a header")?;
        ensure!(header.format == FORMAT, "it has format {}, this caco reads {FORMAT}", header.format);
        let mut images = Vec::with_capacity(header.images);
        for (i, line) in lines.enumerate() {
            if serde_json::from_str::<Unreadable>(line).is_ok() {
                continue;
            }
            let image: Image = serde_json::from_str(line).with_context(|| format!("line {} is not an image", i + 2))?;
            let all = image.shows.iter().flatten().chain([&image.label]);
            if let Some(label) = all.copied().find(|label| *label as usize >= header.classes.len()) {
                bail!("line {}: label {label} is not one of the {} classes", i + 2, header.classes.len());
            }
            images.push(image);
        }
        ensure!(images.len() == header.images, "it lists {} images, its header says {}", images.len(), header.images);
        let several = images.iter().filter(|image| image.shows.is_some()).count();
        let message = "it mixes images that can show several classes with images that show one";
        ensure!(several == 0 || several == images.len(), message);
        Ok(Dataset { root: root.into(), classes: header.classes, images })
    }

    /// Writes the index, including the files that were left out.
    pub fn save(&self, index: &Path, unreadable: &[Unreadable]) -> Result<()> {
        let mut text = serde_json::to_string(&Header {
            format: FORMAT,
            classes: self.classes.clone(),
            images: self.images.len(),
        })?;
        for image in &self.images {
            text = text + "\n" + &serde_json::to_string(image)?;
        }
        for file in unreadable {
            text = text + "\n" + &serde_json::to_string(file)?;
        }
        text.push('\n');
        fs::write(index, text).with_context(|| format!("cannot write {}", index.display()))
    }

    /// The label of every image.
    pub fn labels(&self) -> Vec<i64> {
        self.images.iter().map(|image| i64::from(image.label)).collect()
    }

    /// In a multi-label set: image by image, whether each class is present.
    pub fn shown(&self) -> Option<Vec<bool>> {
        let row = |image: &Image| {
            let shows = image.shows.as_ref()?;
            Some((0..self.classes.len() as u32).map(|class| shows.contains(&class)).collect::<Vec<bool>>())
        };
        let rows: Option<Vec<Vec<bool>>> = self.images.iter().map(row).collect();
        rows.map(|rows| rows.concat())
    }

    /// The file of a sample; for a part of a larger file, its name in the set.
    pub fn file(&self, sample: u32) -> PathBuf {
        self.root.join(&self.images[sample as usize].path)
    }

    /// The same set with only these samples, in this order.
    pub fn subset(&self, samples: &[u32]) -> Dataset {
        let images = samples.iter().map(|s| self.images[*s as usize].clone()).collect();
        Dataset { root: self.root.clone(), classes: self.classes.clone(), images }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Dataset {
        let image = |path: &str, label| Image {
            path: path.into(),
            label,
            shows: None,
            size: (3, 2),
            bytes: 9,
            blake3: "00".into(),
            within: None,
        };
        Dataset {
            root: "/r".into(),
            classes: vec!["a".into(), "b".into()],
            images: vec![image("a/1.jpg", 0), image("b/\"2.jpg", 1)],
        }
    }

    #[test]
    fn a_saved_index_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.jsonl");
        set().save(&index, &[Unreadable { path: "a/x.jpg".into(), unreadable: "truncated".into() }]).unwrap();
        assert_eq!(Dataset::open(&index, Path::new("/r")).unwrap(), set());
    }

    #[test]
    fn images_can_show_several_classes_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.jsonl");
        let mut several = set();
        assert_eq!(several.shown(), None);
        several.images[0].shows = Some(vec![0, 1]);
        several.images[1].shows = Some(vec![]);
        several.save(&index, &[]).unwrap();
        let read = Dataset::open(&index, Path::new("/r")).unwrap();
        assert_eq!(read, several);
        assert_eq!(read.shown(), Some(vec![true, true, false, false]));
        several.images[1].shows = None;
        several.save(&index, &[]).unwrap();
        assert!(format!("{:#}", Dataset::open(&index, Path::new("/r")).unwrap_err()).contains("several classes"));
    }

    #[test]
    fn damage_is_reported_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.jsonl");
        set().save(&index, &[]).unwrap();
        let text = fs::read_to_string(&index).unwrap();
        for (damaged, expected) in [
            (text.replace("\"label\":1", "\"label\":7"), "line 3: label 7"),
            (text.lines().take(2).collect::<Vec<_>>().join("\n"), "lists 1 images"),
            (text.replace("\"format\":1", "\"format\":2"), "format 2"),
            (text.replace("{\"path\"", "{\"pat\""), "line 2 is not an image"),
        ] {
            let error = format!("{:#}", Dataset::parse(&damaged, Path::new("/r")).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
