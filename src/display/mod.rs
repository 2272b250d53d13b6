//! What a run shows while it is in progress: on a terminal a live part below the scrolling lines, plain lines
//! elsewhere.

mod bar;
mod clock;
mod frame;
mod live;
mod meter;
#[macro_use]
pub mod screen;

pub use bar::{Bar, Unit};
use caco_engine::{
    estimate::Costs,
    event::{Before, Event, How},
    graph::{Graph, Id},
    printable::printable,
};
pub use clock::local;
use live::Live;
use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

/// A run's display, on stderr.
pub struct Display<'g> {
    graph: &'g Graph,
    total: usize,
    done: usize,
    show: Show<'g>,
}

/// How a run is displayed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Show nothing while it is in progress.
    pub quiet: bool,
    /// Whether the run continues after a failure.
    pub keep_going: bool,
}

enum Show<'g> {
    Nothing,
    Plain,
    Live(Box<Live<'g>>),
}

/// Whether stderr is a terminal that supports drawing, and plain lines were not requested.
fn drawable() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stderr().is_terminal() && !dumb && !set("NO_COLOR") && !set("CI")
}

impl<'g> Display<'g> {
    /// Creates the display for a run of the stages in `costs`. `share` returns the share of the machine that each
    /// takes.
    pub fn new(graph: &'g Graph, costs: Costs, share: impl Fn(Id) -> f64, style: Style) -> Self {
        let total = costs.runs().len();
        let show = match (style.quiet, drawable()) {
            (true, _) => Show::Nothing,
            (false, false) => Show::Plain,
            (false, true) => Show::Live(Box::new(Live::new(graph, costs, share, style.keep_going))),
        };
        Display { graph, total, done: 0, show }
    }

    /// Displays an event.
    pub fn event(&mut self, event: &Event) {
        self.done += usize::from(matches!(event, Event::Done { .. }));
        if let Some(line) = self.describe(event) {
            self.print(&line);
        }
        if let Show::Live(live) = &mut self.show {
            live.event(event);
        }
    }

    fn print(&mut self, text: &str) {
        let width = self.total.to_string().len();
        let line = format!("[{:>width$}/{}] {}", self.done, self.total, printable(text));
        match &mut self.show {
            Show::Nothing => {}
            // Ignore errors: stderr may be closed, and the run continues.
            Show::Plain => _ = writeln!(std::io::stderr(), "{line}"),
            Show::Live(live) => live.print(&line),
        }
    }

    /// The permanent line for an event, if it has one.
    fn describe(&self, event: &Event) -> Option<String> {
        let name = |id: &Id| &self.graph.stage(*id).name;
        let line = match event {
            // A running stage has a line in the live part.
            Event::Started { .. } if matches!(self.show, Show::Live(_)) => return None,
            Event::Started { id, attempt, before, .. } => match (attempt, before) {
                (1, Before::Nothing) => format!("{}  started", name(id)),
                // A command has no checkpoints to resume from.
                (1, Before::BrokenOff) if self.graph.stage(*id).is_command => {
                    format!("{}  started again after it was stopped", name(id))
                }
                (1, Before::BrokenOff) => format!("{}  resumes where it was stopped", name(id)),
                (1, Before::Failed) => format!("{}  started again after it failed", name(id)),
                (_, Before::Uncollected) => format!("{}  is collected; its program ran before", name(id)),
                (n, _) => format!("{}  started, try {n}", name(id)),
            },
            Event::Done { id, how: How::Ran, took } => format!("{}  done in {}", name(id), duration(*took)),
            Event::Done { id, how: How::Hit, .. } => format!("{}  unchanged, cached", name(id)),
            Event::Done { id, how: How::Shared, .. } => format!("{}  computed elsewhere", name(id)),
            Event::Failed { id, failure, again } => {
                let again = again.map_or(String::new(), |pause| format!("; tried again in {}", duration(pause)));
                format!("{}  failed: {}{again}", name(id), failure.why)
            }
            Event::Replanned { id, path } => {
                let input = path.map_or_else(|| "an input".into(), |path| path.display().to_string());
                format!("{}  is planned again: {input} changed before it started", name(id))
            }
            Event::Elsewhere { id } => format!("{}  is being computed by another run; waiting", name(id)),
            Event::Stopping { running } => {
                format!("stopping: {running} running stage(s) are writing a checkpoint; interrupt again to kill them")
            }
            Event::Diverges { id, key } => format!(
                "{}  wrote different bytes than before under the same key {}; both results are kept, the older one stands",
                name(id),
                key.0.short()
            ),
            Event::Stopped { .. } | Event::Skipped { .. } | Event::Tick => return None,
        };
        Some(line)
    }
}

/// Counts a noun: `1 record`, `2 records`.
pub fn count(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Formats a number of bytes: `1.20 GiB`.
pub fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Formats a duration: `0.03 s`, `42.0 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    match seconds {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}
