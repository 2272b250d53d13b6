//! `caco export croissant`

use super::super::{OfPipelineArgs, Project, open, print_json};
use anyhow::{Context, Result};
use caco_provenance::croissant::{self, About};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
pub struct CroissantArgs {
    /// A stage of kind `index`, or the file of an index
    index: String,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Write croissant.json and its images.jsonl into this folder [default: print]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The data set's name [default: the stage's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its licence, as a URL [default: none stated]
    #[arg(long, default_value = "no licence was stated", hide_default_value = true, value_name = "URL")]
    license: String,
    /// Its address
    #[arg(long, default_value = "file:images", value_name = "URL")]
    url: String,
}

pub fn main(args: &CroissantArgs, project: &Project) -> Result<ExitCode> {
    let path = match Path::new(&args.index) {
        path if path.is_file() => path.to_path_buf(),
        _ => of_stage(args, project)?,
    };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stem = || Path::new(&args.index).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = args.name.clone().unwrap_or_else(stem);
    let made = fs::metadata(&path).and_then(|meta| meta.modified());
    let made = made.with_context(|| format!("cannot read {}", path.display()))?;
    let date = humantime::format_rfc3339_seconds(made).to_string()[..10].to_string();
    let about = About { name, license: args.license.clone(), url: args.url.clone(), date };
    let found = croissant::of_index(&text, &about).with_context(|| format!("{} is no index", path.display()))?;
    let Some(folder) = &args.out else {
        print_json(&found.metadata)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let metadata = serde_json::to_string_pretty(&found.metadata)? + "\n";
    for (name, text) in [("croissant.json", &metadata), ("images.jsonl", &found.table)] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say!("croissant.json and images.jsonl are in {}; the images belong below images/ there", folder.display());
    Ok(ExitCode::SUCCESS)
}

fn of_stage(args: &CroissantArgs, project: &Project) -> Result<PathBuf> {
    let store = open::existing(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let artifact = open::output_called("index", &args.index, &graph, &store)?.artifact;
    Ok(store.object(artifact.blake3))
}
