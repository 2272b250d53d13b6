//! Renders the live part of a run as text: a line for each running stage and one for the whole run. Uses neither the
//! terminal nor the clock. What does not fit is shortened or left out, least important first.

use caco_engine::forecast::Left;
use caco_pipeline::progress::Progress;
use console::{measure_text_width, style, truncate_str};
use indicatif::HumanCount;
use std::time::Duration;

/// The live part of a run.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The running stages, longest running first.
    pub stages: Vec<Line>,
    /// All stages.
    pub total: Total,
}

/// A running stage.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// How long it has run.
    pub elapsed: Duration,
    /// How long it, or other stages of its kind, took before.
    pub before: Option<Duration>,
    /// The progress that it reports, if any.
    pub reported: Option<Reported>,
}

/// The progress that a stage reports.
#[derive(Clone, Debug)]
pub struct Reported {
    /// What the stage wrote.
    pub progress: Progress,
    /// Units per second.
    pub rate: Option<f64>,
    /// Time left at that rate.
    pub left: Option<Duration>,
}

/// The counts of all stages.
#[derive(Clone, Debug)]
pub struct Total {
    /// Done.
    pub done: usize,
    /// All stages.
    pub all: usize,
    /// Running.
    pub running: usize,
    /// Failed for good.
    pub failed: usize,
    /// Not run because of those failures.
    pub skipped: usize,
    /// Being computed by another run.
    pub elsewhere: usize,
    /// Time since the run began.
    pub elapsed: Duration,
    /// Time until it ends.
    pub left: Left,
}

/// Terminal lines kept free for the total and for the scrolling text above the live part.
const RESERVED: usize = 4;
/// The gap between two pieces of a line.
const GAP: &str = "  ";

/// A piece of a line, and its rank: when space is short, the highest rank is left out first.
type Piece = (u8, String);

impl Frame {
    /// Renders the lines, none wider than the terminal.
    pub fn render(&self, rows: usize, columns: usize) -> Vec<String> {
        let width = columns.saturating_sub(1);
        let room = rows.saturating_sub(RESERVED).max(1);
        let shown = if self.stages.len() > room { room.saturating_sub(1).max(1) } else { self.stages.len() };
        let longest = self.stages[..shown].iter().map(|line| measure_text_width(&line.name)).max().unwrap_or(0);
        let name = longest.min((width * 3 / 10).clamp(8, 48));
        let bar = if width < 30 { 0 } else { (width / 8).min(24) };
        let mut lines: Vec<String> = self.stages[..shown].iter().map(|line| line.render(name, bar, width)).collect();
        if shown < self.stages.len() {
            lines.push(format!("{GAP}… and {} more", self.stages.len() - shown));
        }
        lines.push(self.total.render(width));
        // Lines above the top edge of the terminal could not be redrawn.
        let hidden = lines.len().saturating_sub(rows.saturating_sub(1).max(1));
        lines[hidden..].iter().map(|line| truncate_str(line, width, "…").into_owned()).collect()
    }
}

impl Line {
    fn render(&self, name: usize, bar: usize, width: usize) -> String {
        let name = format!("{GAP}{:name$}", shorten(&self.name, name));
        let bar = if bar > 0 { format!("{GAP}{}", self.bar(bar)) } else { String::new() };
        let taken = measure_text_width(&name) + measure_text_width(&bar) + GAP.len();
        format!("{name}{bar}{GAP}{}", join(self.pieces(), width.saturating_sub(taken)))
    }

    fn bar(&self, width: usize) -> String {
        let Some(fraction) = self.fraction() else { return " ".repeat(width) };
        let full = ((fraction * width as f64) as usize).min(width);
        format!("{}{}", style("━".repeat(full)).for_stderr().cyan(), "─".repeat(width - full))
    }

    fn fraction(&self) -> Option<f64> {
        let part = |done: f64, all: f64| (all > 0.0).then(|| done / all);
        match &self.reported {
            Some(reported) => part(reported.progress.done as f64, reported.progress.total as f64),
            // A stage is not done just because its earlier duration has passed.
            None => part(self.elapsed.as_secs_f64(), self.before?.as_secs_f64()).map(|f| f.min(0.99)),
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let elapsed = clock(self.elapsed);
        let Some(reported) = &self.reported else {
            return match self.before {
                None => vec![(0, elapsed)],
                Some(before) if self.elapsed > before => vec![(0, format!("{elapsed}, {} before", clock(before)))],
                Some(before) => vec![(0, format!("{elapsed} of about {}", clock(before)))],
            };
        };
        let Progress { done, total, unit, note } = &reported.progress;
        let all = if *total > 0 { format!("/{}", HumanCount(*total)) } else { String::new() };
        let mut pieces = vec![(0, plain(&format!("{}{all} {unit}", HumanCount(*done))))];
        pieces.extend(reported.rate.map(|rate| (3, format!("{}/s", figure(rate)))));
        pieces.extend(reported.left.map(|left| (1, format!("{} left", clock(left)))));
        pieces.push((2, plain(note)));
        pieces
    }
}

impl Total {
    fn render(&self, width: usize) -> String {
        let left = match self.left {
            Left::Unknown => "time left unknown".into(),
            // The known part is nearly over, and the rest is unknown.
            Left::AtLeast(time) if time < Duration::from_secs(1) => "time left unknown".into(),
            Left::AtLeast(time) => format!("at least {} left", clock(time)),
            Left::About(time) => format!("about {} left", clock(time)),
        };
        let count = |n: usize, what: &str| if n > 0 { format!("{n} {what}") } else { String::new() };
        let failed = match self.failed {
            0 => String::new(),
            n => style(format!("{n} failed")).for_stderr().red().to_string(),
        };
        let pieces = vec![
            (0, format!("{}/{} stages", self.done, self.all)),
            (2, count(self.running, "running")),
            (1, failed),
            (3, count(self.skipped, "not run")),
            (4, count(self.elsewhere, "in another run")),
            (5, clock(self.elapsed)),
            (if self.left == Left::Unknown { 6 } else { 1 }, left),
        ];
        join(pieces, width)
    }
}

/// Joins as many pieces as fit.
fn join(mut pieces: Vec<Piece>, width: usize) -> String {
    pieces.retain(|(_, text)| !text.is_empty());
    loop {
        let text = pieces.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(GAP);
        if measure_text_width(&text) <= width || pieces.len() < 2 {
            return text;
        }
        let least = pieces.iter().enumerate().max_by_key(|(place, (rank, _))| (*rank, *place)).map(|(place, _)| place);
        pieces.remove(least.expect("there are two"));
    }
}

/// Shortens a name that is too long to its head and tail: variants differ at the end, stages at the start.
fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.into();
    }
    let head = (width - 1) / 2;
    let tail = length - (width - 1 - head);
    name.chars().take(head).chain(['…']).chain(name.chars().skip(tail)).collect()
}

/// Text from a stage, without control characters, which could move the cursor.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().into()
}

/// Formats a number with three significant digits.
fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => HumanCount(v as u64).to_string(),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `0:12`, `12:03`, `1:02:03`.
fn clock(time: Duration) -> String {
    let s = time.as_secs();
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn line(name: &str, before: Option<u64>, reported: Option<Reported>) -> Line {
        Line { name: name.into(), elapsed: seconds(12), before: before.map(seconds), reported }
    }

    fn reported(done: u64, total: u64, note: &str) -> Reported {
        let progress = Progress { done, total, unit: "steps".into(), note: note.into() };
        Reported { progress, rate: Some(12.34), left: Some(seconds(225)) }
    }

    fn frame() -> Frame {
        let stages = vec![
            line(
                "pretrain/learning-rate=0.03,temperature=0.08,seed=1",
                Some(300),
                Some(reported(1200, 4000, "loss 0.31")),
            ),
            line("index", Some(40), None),
            line("index of what took longer", Some(9), None),
            line("new", None, None),
            line("counts", None, Some(Reported { rate: None, left: None, ..reported(7, 0, "ü\x1b[2J\n") })),
        ];
        let total = Total {
            done: 12,
            all: 300,
            running: 5,
            failed: 1,
            skipped: 2,
            elsewhere: 1,
            elapsed: seconds(123),
            left: Left::AtLeast(seconds(3723)),
        };
        Frame { stages, total }
    }

    fn text(frame: &Frame, rows: usize, columns: usize) -> String {
        let lines = frame.render(rows, columns);
        for line in &lines {
            assert!(measure_text_width(line) < columns, "wider than {columns}: {line}");
        }
        console::strip_ansi_codes(&lines.join("\n")).into_owned()
    }

    #[test]
    fn every_width_shows_what_matters_most() {
        let widths = [120, 80, 40, 20].map(|columns| format!("{columns}:\n{}", text(&frame(), 24, columns)));
        insta::assert_snapshot!(widths.join("\n\n"));
        // No width panics, and no line is too wide.
        (0..200).for_each(|columns| drop(text(&frame(), 24, columns.max(2))));
    }

    #[test]
    fn a_low_terminal_counts_the_rest() {
        let lines = frame().render(8, 80);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[3], "  … and 2 more");
        assert_eq!(frame().render(2, 80).len(), 1);
        assert_eq!(frame().render(9, 80).len(), 6, "all fit");
    }

    #[test]
    fn names_keep_both_ends() {
        assert_eq!(shorten("pretrain/lr=0.03,seed=1", 12), "pretr…seed=1");
        assert_eq!(shorten("short", 12), "short");
    }
}
