//! `caco data`: one file a subcommand.

pub(super) mod check;
mod fetch;
pub(super) mod list;
mod pixels;
pub(super) mod show;

use super::Project;
use anyhow::{Result, bail};
use caco_data_sets::{Catalogue, DataSet, place::Place};
use caco_pipeline::diagnostic::nearest;
use clap::{Args, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco data list\n  caco data fetch pets\n  caco data check pets --decode\n  caco data show index/train --out sheet.png"
)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// List the known data sets: images, size, layout, licence
    List(list::ListArgs),
    /// Download a data set, verify its checksums and unpack it
    Fetch(fetch::FetchArgs),
    /// Check a data set: count images and classes, find unreadable files
    Check(check::CheckArgs),
    /// Draw a contact sheet of images and their augmented views
    Show(show::ShowArgs),
    /// Decode an image as stages do: its size, mode and a digest of its pixels
    Pixels(pixels::PixelsArgs),
}

/// Which data sets there are, and where they are kept.
#[derive(Args, Clone)]
struct HomeArgs {
    /// The folder that holds data sets, each in a folder of its name [default: data, in the project]
    #[arg(long, env = "CACO_DATA", hide_env_values = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Read the data sets from this file instead of the built-in list
    #[arg(long, hide = true, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

pub fn main(args: &DataArgs, project: &Project) -> Result<ExitCode> {
    match &args.command {
        DataCommand::List(args) => list::main(args, project),
        DataCommand::Fetch(args) => fetch::main(args, project),
        DataCommand::Check(args) => check::main(args, project),
        DataCommand::Show(args) => show::main(args, project),
        DataCommand::Pixels(args) => pixels::main(args),
    }
}

impl HomeArgs {
    fn catalogue(&self) -> Result<Catalogue> {
        match &self.catalogue {
            Some(file) => Catalogue::load(file),
            None => Ok(Catalogue::embedded()),
        }
    }

    /// Where a data set is kept.
    fn place(&self, set: &DataSet, project: &Project) -> Place {
        let data = self.data.clone().unwrap_or_else(|| project.shown(&project.root().join("data")));
        Place::new(data.join(&set.name))
    }
}

/// The data set of that name; an error names those that there are.
fn find<'c>(catalogue: &'c Catalogue, name: &str) -> Result<&'c DataSet> {
    if let Some(set) = catalogue.get(name) {
        return Ok(set);
    }
    let meant = nearest(name, catalogue.names()).map_or(String::new(), |near| format!("did you mean '{near}'? "));
    let all: Vec<&str> = catalogue.names().collect();
    bail!("no data set is called '{name}'; {meant}known here: {}", all.join(", "))
}
