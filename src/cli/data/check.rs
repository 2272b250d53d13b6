//! `caco data check`

use super::{
    super::{Project, print, print_json, programs},
    HomeArgs, find,
};
use crate::display::{Bar, Unit};
use anyhow::{Context, Result, ensure};
use caco_data_sets::DataSet;
use caco_kinds::{Format, Split};
use caco_pipeline::progress::Progress;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// How many files that cannot be read are named.
const SHOWN: usize = 10;

#[derive(Args)]
pub struct CheckArgs {
    /// The data set; `caco data list` lists them
    name: String,
    /// Its folder [default: one of its name where data sets are kept]
    #[arg(long, value_name = "DIR")]
    at: Option<PathBuf>,
    /// Decode every image; without this only check that it exists
    #[arg(long)]
    decode: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: HomeArgs,
}

/// What was found of a split.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Found {
    split: Split,
    /// Images and classes that there should be.
    expected: (u64, u64),
    #[serde(flatten)]
    report: Report,
    /// Why its images cannot be listed, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The worker's answer (`data/survey.rs`).
#[derive(Default, Serialize, schemars::JsonSchema, Deserialize)]
struct Report {
    images: u64,
    classes: u64,
    unreadable: Vec<Unreadable>,
}

#[derive(Serialize, schemars::JsonSchema, Deserialize)]
struct Unreadable {
    path: String,
    unreadable: String,
}

impl Found {
    fn is_right(&self) -> bool {
        self.error.is_none()
            && self.expected == (self.report.images, self.report.classes)
            && self.report.unreadable.is_empty()
    }

    fn text(&self) -> String {
        if let Some(error) = &self.error {
            return format!("{:8} {error}\n", self.split.name());
        }
        let Report { images, classes, unreadable } = &self.report;
        let verdict = if self.is_right() { "right".into() } else { self.fault() };
        let mut text = format!("{:8} {images} images of {classes} classes: {verdict}\n", self.split.name());
        for file in unreadable.iter().take(SHOWN) {
            text += &format!("  {}: {}\n", file.path, file.unreadable);
        }
        let more = unreadable.len().saturating_sub(SHOWN);
        if more > 0 {
            text += &format!("  … and {more} more\n");
        }
        text
    }

    fn fault(&self) -> String {
        let mut faults = vec![];
        let (images, classes) = self.expected;
        if (images, classes) != (self.report.images, self.report.classes) {
            faults.push(format!("there should be {images} of {classes}"));
        }
        if !self.report.unreadable.is_empty() {
            faults.push(format!("{} cannot be read", self.report.unreadable.len()));
        }
        faults.join(", and ")
    }
}

pub fn main(args: &CheckArgs, project: &Project) -> Result<ExitCode> {
    let catalogue = args.home.catalogue()?;
    let set = find(&catalogue, &args.name)?;
    let folder = args.at.clone().unwrap_or_else(|| args.home.place(set, project).folder().to_path_buf());
    // A set that was unpacked by hand need not lie in a folder of its archive.
    let root = Some(folder.join(&set.root)).filter(|root| root.is_dir()).unwrap_or_else(|| folder.clone());
    let fetch = || format!("{} is not a folder; `caco data fetch {}` downloads the set", folder.display(), set.name);
    ensure!(root.is_dir(), fetch());
    programs::worker()?;
    // A split that cannot be listed says nothing of the others.
    let found = set.images.iter().map(|(split, images)| {
        let expected = (*images, set.classes.into());
        let (report, error) = match look(args, set, &root, *split) {
            Ok(report) => (report, None),
            Err(error) => (Report::default(), Some(format!("{error:#}"))),
        };
        Found { split: *split, expected, report, error }
    });
    let found = found.collect::<Vec<_>>();
    match args.json {
        true => print_json(&found)?,
        false => print(&found.iter().map(Found::text).collect::<String>())?,
    }
    Ok(if found.iter().all(Found::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(args: &CheckArgs, set: &DataSet, root: &Path, split: Split) -> Result<Report> {
    // An image folder says by a folder what other layouts say in their annotations.
    let (root, named) = match set.format {
        Format::ImageFolder => (root.join(split.name()), None),
        _ => (root.into(), Some(split)),
    };
    let setup = json!({"root": root, "format": set.format, "split": named, "decode": args.decode});
    let of_split = named.map_or(String::new(), |split| format!(", split {}", split.name()));
    let what = format!("decoding the images of {}{of_split}", root.display());
    let mut bar = args.decode.then(|| Bar::new(what, Unit::Images));
    let watch = |progress: &Progress| bar.iter_mut().for_each(|bar| bar.at(progress.done, Some(progress.total)));
    let report = programs::ask_watched("--data-survey", &setup, watch)
        .with_context(|| format!("cannot look at split {} of {}", split.name(), set.name))?;
    serde_json::from_value(report).context("the worker's answer is no survey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_cannot_be_listed_is_a_line_among_the_others() {
        let found = |images, error: Option<&str>| Found {
            split: Split::Train,
            expected: (3, 2),
            report: Report { images, classes: 2, unreadable: vec![] },
            error: error.map(String::from),
        };
        assert!(found(3, None).is_right() && !found(4, None).is_right() && !found(3, Some("x")).is_right());
        assert_eq!(found(3, None).text(), "train    3 images of 2 classes: right\n");
        assert_eq!(found(3, Some("cannot look at it")).text(), "train    cannot look at it\n");
    }
}
