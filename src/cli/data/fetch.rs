//! `caco data fetch`

use super::{
    super::{Project, print},
    HomeArgs, find,
};
use crate::display::{Bar, Unit};
use anyhow::Result;
use caco_data_sets::{
    download::Client,
    fetch::{Fetch, Origin, Outcome, Step, Watch},
    place::Place,
};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct FetchArgs {
    /// The data set; `caco data list` lists them
    name: String,
    /// The folder to unpack into [default: one of its name where data sets are kept]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Take the archives from this URL or folder, under the same names
    #[arg(long, value_name = "URL|DIR")]
    from: Option<Origin>,
    /// Remove the archives once they are unpacked
    #[arg(long)]
    remove_archives: bool,
    #[command(flatten)]
    home: HomeArgs,
}

pub fn main(args: &FetchArgs, project: &Project) -> Result<ExitCode> {
    let catalogue = args.home.catalogue()?;
    let set = find(&catalogue, &args.name)?;
    let place = args.to.clone().map_or_else(|| args.home.place(set, project), Place::new);
    let origin = args.from.clone().unwrap_or(Origin::Published);
    say!("{}; licence: {}", set.title, set.licence);
    let fetch = Fetch { set, place: &place, origin: &origin, client: &Client::default() };
    let outcome = fetch.run(&mut Progress::default())?;
    if args.remove_archives {
        place.remove_archives(set)?;
    }
    let done = match outcome {
        Outcome::Fetched => "is in",
        Outcome::AlreadyThere => "was already in",
    };
    say!("{} {done} {}; for a pipeline:", set.name, place.folder().display());
    let lines = set.index_lines(&project.written(place.folder()));
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how far a fetch is, a line a step.
#[derive(Default)]
struct Progress {
    bar: Option<Bar>,
}

impl Watch for Progress {
    fn begin(&mut self, step: Step, file: &str) {
        let word = match step {
            Step::Download => "download",
            Step::Compare => "compare",
            Step::Unpack => "unpack",
        };
        // The last one ends before the next begins.
        self.bar = None;
        self.bar = Some(Bar::new(format!("{word} {file}"), Unit::Bytes));
    }

    fn at(&mut self, done: u64, total: Option<u64>) {
        if let Some(bar) = &mut self.bar {
            bar.at(done, total);
        }
    }
}
