//! `caco data list`

use super::{
    super::{Project, display::bytes, print, print_json},
    HomeArgs,
};
use anyhow::Result;
use caco_data_sets::{DataSet, place::State};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub struct ListArgs {
    /// Print all that is known of them, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: HomeArgs,
}

/// A data set, as `--json` prints it.
#[derive(Serialize, JsonSchema)]
pub struct Listed<'s> {
    /// What is known of it.
    #[serde(flatten)]
    set: &'s DataSet,
    /// How much of it is here.
    state: State,
    /// Its folder here.
    folder: PathBuf,
}

pub fn main(args: &ListArgs, project: &Project) -> Result<ExitCode> {
    let catalogue = args.home.catalogue()?;
    let state = |set: &DataSet| args.home.place(set, project).state(set);
    if args.json {
        let row = |set| Listed { set, state: state(set), folder: args.home.place(set, project).folder().into() };
        print_json(&catalogue.sets.iter().map(row).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<(&DataSet, State)> = catalogue.sets.iter().map(|set| (set, state(set))).collect();
    print(&table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[(&DataSet, State)]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["name", "images", "size", "format", "checksum", "here", "licence"]);
    for column in [1, 2] {
        table.column_mut(column).expect("there are seven").set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for (set, state) in rows {
        table.add_row([
            set.name.clone(),
            set.all_images().to_string(),
            set.bytes().map_or_else(|| "?".into(), bytes),
            format!("{:?}", set.format),
            checksum(set).into(),
            here(*state).into(),
            set.licence.clone(),
        ]);
    }
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

/// The checksum that all archives have, the stronger one first.
fn checksum(set: &DataSet) -> &'static str {
    if set.archives.iter().all(|archive| archive.sha256.is_some()) {
        return "SHA-256";
    }
    let all = set.archives.iter().all(|archive| archive.md5.is_some() || archive.sha256.is_some());
    if all { "MD5" } else { "none" }
}

fn here(state: State) -> &'static str {
    match state {
        State::Here => "yes",
        State::Partly => "partly",
        State::Absent => "no",
    }
}
