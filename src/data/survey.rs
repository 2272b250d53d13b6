//! Surveys the folder of a data set: counts its images and classes, and finds images that cannot be read.

use super::{
    dataset::Unreadable,
    format::{self, Listed},
    index,
};
use anyhow::Result;
use caco_kinds::{Format, Split};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What to survey.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The folder of the data set.
    pub root: PathBuf,
    /// Its layout.
    pub format: Format,
    /// The split, if the layout has splits.
    pub split: Option<Split>,
    /// Whether to decode every image, or only check that it exists.
    pub decode: bool,
}

/// The result of a survey.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Images listed in the annotations.
    pub images: usize,
    /// Classes named in the annotations.
    pub classes: usize,
    /// Images that are missing or cannot be decoded, and what else cannot be used, such as a broken link.
    pub unreadable: Vec<Unreadable>,
}

/// Surveys a split; `progress` is called with the number of images decoded and the total.
pub fn survey(setup: &Setup, progress: impl Fn(u64, u64) + Sync) -> Result<Report> {
    let listing = format::list(setup.format, setup.split, &setup.root)?;
    let (images, classes) = (listing.images.len(), listing.classes.len());
    let unreadable = if setup.decode {
        index::build(&setup.root, listing, progress).1
    } else {
        let missing = listing.images.iter().filter_map(|image| missing(&setup.root, image));
        listing.left_out.iter().cloned().chain(missing).collect()
    };
    Ok(Report { images, classes, unreadable })
}

fn missing(root: &Path, image: &Listed) -> Option<Unreadable> {
    let there = image.within.is_some() || root.join(&image.path).is_file();
    (!there).then(|| Unreadable { path: image.path.clone(), unreadable: "does not exist".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::tree;

    #[test]
    fn missing_images_are_found_without_decoding_and_bad_ones_with() {
        let listed = br#"{"pie": ["pie/1", "pie/2"]}"#;
        let root = tree(&[("meta/train.json", listed), ("images/pie/1.jpg", b"no image")]);
        let setup =
            |decode| Setup { root: root.path().into(), format: Format::Food101, split: Some(Split::Train), decode };
        let unreadable = |decode| {
            let report = survey(&setup(decode), |_, _| ()).unwrap();
            assert_eq!((report.images, report.classes), (2, 1));
            report.unreadable.into_iter().map(|file| file.path).collect::<Vec<_>>()
        };
        assert_eq!(unreadable(false), ["images/pie/2.jpg"]);
        assert_eq!(unreadable(true), ["images/pie/1.jpg", "images/pie/2.jpg"]);
    }
}
