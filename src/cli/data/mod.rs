//! `caco data`: one file a subcommand.

pub(super) mod check;
mod fetch;
pub(super) mod list;
pub(super) mod show;

use super::StoreArgs;
use anyhow::{Result, bail};
use caco_data_sets::{Catalogue, DataSet, place::Place};
use caco_pipeline::diagnostic::nearest;
use clap::{Args, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// List the data sets that are known: images, size, layout, licence, and whether they are here
    List(list::ListArgs),
    /// Download a data set, compare it with its checksums and unpack it; goes on where it was broken off
    Fetch(fetch::FetchArgs),
    /// Is a data set whole? Counts images and classes of each split, and finds files that cannot be read
    Check(check::CheckArgs),
    /// Draw a contact sheet: images of an index, and the views that a training makes of them
    Show(show::ShowArgs),
}

/// Which data sets there are, and where they are kept.
#[derive(Args, Clone)]
struct HomeArgs {
    /// Where data sets are kept, each in a folder of its name
    #[arg(long, env = "CACO_DATA", default_value = "data", value_name = "DIR")]
    data: PathBuf,
    /// Take the data sets from this file, not from the ones that are known
    #[arg(long, hide = true, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

pub fn main(args: &DataArgs, store: &StoreArgs) -> Result<ExitCode> {
    match &args.command {
        DataCommand::List(args) => list::main(args),
        DataCommand::Fetch(args) => fetch::main(args),
        DataCommand::Check(args) => check::main(args),
        DataCommand::Show(args) => show::main(args, store),
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
    fn place(&self, set: &DataSet) -> Place {
        Place::new(self.data.join(&set.name))
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
