//! `caco export`: one file a format.

mod croissant;
mod ro_crate;

use super::Project;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco export ro-crate packed -p tiny\n  caco export croissant index/train --out metadata"
)]
pub struct ExportArgs {
    #[command(subcommand)]
    format: Format,
}

#[derive(Subcommand)]
enum Format {
    /// Write a run as an RO-Crate: results, signed statements, logs
    RoCrate(ro_crate::RoCrateArgs),
    /// Write the metadata of a data set as Croissant 1.1
    Croissant(croissant::CroissantArgs),
}

pub fn main(args: &ExportArgs, project: &Project) -> Result<ExitCode> {
    match &args.format {
        Format::RoCrate(args) => ro_crate::main(args, project),
        Format::Croissant(args) => croissant::main(args, project),
    }
}
