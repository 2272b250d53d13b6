//! `caco data show`

use super::super::{OfPipelineArgs, Project, open, print, print_json, programs};
use anyhow::{Context, Result, bail, ensure};
use caco_engine::graph::Origin;
use caco_inspect::name;
use caco_kinds::{Format, Split, Views};
use caco_pipeline::kind::options;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
pub struct ShowArgs {
    /// A folder, or a stage of kind `index` or `pack` that has run
    index: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// The PNG file to write
    #[arg(short, long, default_value = "sheet.png", value_name = "FILE")]
    out: PathBuf,
    /// How many images; one of each class first
    #[arg(short = 'n', long, default_value_t = 12, value_name = "N")]
    count: usize,
    /// The views, in RON: SingleCrop(size: 96)
    #[arg(long, default_value = "SingleCrop(size: 128)", value_name = "VIEWS")]
    views: String,
    /// The seed of the choice of images and of the views
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// The epoch whose views to draw
    #[arg(long, default_value_t = 0, value_name = "N")]
    epoch: u64,
    /// The layout, of a folder
    #[arg(long, default_value = "ImageFolder", value_name = "FORMAT")]
    format: String,
    /// The split, of a folder in a layout that has some
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

/// A row of the sheet (`data/sheet.rs`).
#[derive(Serialize, schemars::JsonSchema, Deserialize)]
pub struct Row {
    path: String,
    classes: Vec<String>,
    size: (u32, u32),
    sample: u32,
}

pub fn main(args: &ShowArgs, project: &Project) -> Result<ExitCode> {
    ensure!(args.count >= 1, "--count is 0; give at least 1");
    let views: Views =
        options().from_str(&args.views).with_context(|| format!("--views {} is no list of views", args.views))?;
    if let Err(complaint) = views.check() {
        bail!("--views: {} {}", complaint.field, complaint.message);
    }
    let is_folder = Path::new(&args.index).is_dir();
    let mut setup = if is_folder { folder(args)? } else { stage(args, project)? };
    setup["views"] = serde_json::to_value(&views)?;
    setup["seed"] = args.seed.into();
    setup["epoch"] = args.epoch.into();
    setup["count"] = args.count.into();
    setup["out"] = serde_json::to_value(&args.out)?;
    let rows: Vec<Row> =
        serde_json::from_value(programs::ask("--data-sheet", &setup)?).context("the worker's answer")?;
    match args.json {
        true => print_json(&rows)?,
        false => print(&rows.iter().zip(1..).map(text).collect::<String>())?,
    }
    let of = if is_folder { "folder" } else { "stage" };
    say!(
        "{} shows them, from the top, of the {of} {}: on the left each image, then its views",
        args.out.display(),
        args.index
    );
    Ok(ExitCode::SUCCESS)
}

fn text((row, number): (&Row, usize)) -> String {
    let (width, height) = row.size;
    format!("{number:3}  {width} x {height}  {}  {}\n", row.classes.join(", "), row.path)
}

fn folder(args: &ShowArgs) -> Result<Value> {
    let format: Format = word(&args.format).with_context(|| format!("--format {} is no layout", args.format))?;
    let split: Option<Split> = args.split.as_deref().map(word).transpose().context("--split")?;
    let fits = split.map_or(format.splits().is_empty(), |split| format.splits().contains(&split));
    ensure!(fits, "--split: {format:?} has the splits {:?}", format.splits());
    Ok(json!({"index": null, "root": args.index, "format": format, "split": split}))
}

/// One of an enumeration's values, by its name.
fn word<T: serde::de::DeserializeOwned>(name: &str) -> Result<T> {
    Ok(serde_json::from_value(name.into())?)
}

fn stage(args: &ShowArgs, project: &Project) -> Result<Value> {
    let store = open::existing(project)
        .with_context(|| format!("{} is not a folder, so it is taken as a stage", args.index))?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let index = open::output_called("index", &args.index, &graph, &store)?;
    let root = match graph.images(index.stage).map_err(name::plain)? {
        Origin::Path(Ok(at)) => at.path,
        Origin::Path(Err((path, variable))) => bail!("{path}: the environment variable {variable} is not set"),
        Origin::Output(of, output) => {
            let reference = format!("{}/{output}", graph.stage(of).name);
            store.materialise(&open::output(&reference, &graph, &store)?.artifact)?
        }
        Origin::Tool(name) => bail!("the images are those of the program {name}"),
    };
    Ok(json!({"index": store.object(index.artifact.blake3), "root": root}))
}
