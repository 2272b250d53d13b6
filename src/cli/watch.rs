//! `caco watch`

use super::{OfPipelineArgs, Project, open, print, print_json};
use anyhow::Result;
use caco_inspect::curve;
use caco_report::curves::render;
use clap::Args;
use std::{io::IsTerminal, process::ExitCode, thread::sleep, time::Duration};

/// Between two looks at the curves.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(
    after_help = "Examples:\n  caco watch                          # the training in progress\n  caco watch pretrain/short --once"
)]
pub struct WatchArgs {
    /// The stage [default: the training in progress]
    stage: Option<String>,
    #[command(flatten)]
    pipeline: OfPipelineArgs,
    /// Draw once, and exit
    #[arg(long)]
    once: bool,
    /// Print the newest values as JSON, and exit
    #[arg(long)]
    json: bool,
}

pub fn main(args: &WatchArgs, project: &Project) -> Result<ExitCode> {
    let store = open::store(project)?;
    let graph = open::graph_of(&args.pipeline, project, &store)?;
    let mut training = curve::training(&graph, &store, args.stage.as_deref())?;
    open::note(&training.notes);
    let live = std::io::stdout().is_terminal() && !args.once && !args.json && training.is_running();
    loop {
        let ended = training.read(&store)?;
        if args.json {
            print_json(&training.curve.newest(&training.pace))?;
        } else {
            let clear = if live { "\x1b[2J\x1b[H" } else { "" };
            print(&format!("{clear}{}", render(&training.stage, &training.curve, &training.pace, width())))?;
        }
        if ended || !live {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(LOOK);
    }
}

/// Columns of the terminal.
fn width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills the structure that it is given, or fails.
    let known = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0 && size.ws_col > 0;
    if known { size.ws_col.into() } else { 100 }
}
