//! An audit for people: a tree of ticks and crosses.

use super::audit::{Node, Report, Source, State};
use std::{fmt::Write, path::Path};

impl State {
    /// One character.
    pub fn mark(self) -> char {
        match self {
            State::Pass => '✓',
            State::Note => '△',
            State::Collected => '○',
            State::Fail => '✗',
        }
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            State::Pass => "pass",
            State::Note => "note",
            State::Collected => "collected",
            State::Fail => "fail",
        }
    }
}

/// The tree below every result that was asked about. A result that several read stands in full once.
pub fn text(report: &Report) -> String {
    let mut tree = Tree { report, seen: vec![false; report.nodes.len()], text: String::new() };
    // First those that nothing else was made from: the others stand below them.
    let read = |target: &&usize| {
        report.nodes.iter().flat_map(|node| node.inputs.values()).any(|source| *source == Source::Node(**target))
    };
    let (below, tops): (Vec<&usize>, Vec<&usize>) = report.targets.iter().partition(read);
    for target in tops.into_iter().chain(below) {
        if !tree.seen[*target] {
            tree.node(*target, "", "", "");
        }
    }
    tree.text
}

struct Tree<'r> {
    report: &'r Report,
    seen: Vec<bool>,
    text: String,
}

impl Tree<'_> {
    /// A node: `head` stands before its name, `below` before everything under it.
    fn node(&mut self, i: usize, label: &str, head: &str, below: &str) {
        let node = &self.report.nodes[i];
        let again = std::mem::replace(&mut self.seen[i], true);
        let above = if again && !node.inputs.is_empty() { "  (above)" } else { "" };
        self.line(&format!("{head}{label}{}{above}", title(node)));
        if again {
            return;
        }
        let sources = sources(node);
        let bar = if sources.is_empty() { " " } else { "│" };
        for check in node.checks.iter().filter(|check| check.state != State::Pass) {
            let told = shorten(&check.told);
            self.line(&format!("{below}{bar}  {} {}: {told}", check.state.mark(), check.check));
        }
        if let Some(figures) = node.checks.iter().find(|c| c.check == "figures" && c.state == State::Pass) {
            self.line(&format!("{below}{bar}  ✓ {}", figures.told));
        }
        let count = sources.len();
        for (k, source) in sources.into_iter().enumerate() {
            let last = k + 1 == count;
            let (branch, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            match source {
                Source::Node(i) => self.node(i, "", &format!("{below}{branch}"), &format!("{below}{rest}")),
                Source::Path(path) => self.line(&format!("{below}{branch}{}", relative(&path))),
                Source::Nowhere => self.line(&format!("{below}{branch}nothing that is known")),
            }
        }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{}", line.trim_end()).expect("a string takes all text");
    }
}

fn title(node: &Node) -> String {
    let key = node.key.map_or("key unknown".into(), |key| key.0.short());
    let signer = node.signer.as_ref().map_or(String::new(), |name| format!("  signed by {name}"));
    format!("{} {}  {}  {key}{signer}", node.state().mark(), node.stage, node.kind)
}

/// Where a node's inputs come from, each source once.
fn sources(node: &Node) -> Vec<Source> {
    let mut found: Vec<Source> = vec![];
    for source in node.inputs.values() {
        if !found.contains(source) {
            found.push(source.clone());
        }
    }
    found
}

/// Paths below the current folder without it.
fn shorten(told: &str) -> String {
    match std::env::current_dir() {
        Ok(here) => told.replace(&format!("{}/", here.display()), ""),
        Err(_) => told.into(),
    }
}

fn relative(path: &Path) -> String {
    shorten(&path.display().to_string())
}

/// What came out, in one line.
pub fn summary(report: &Report, seconds: f64) -> String {
    let (fails, gone) = (report.count(State::Fail), report.count(State::Collected));
    let results = report.nodes.len();
    let mut text = format!(
        "{results} result{}, {} checks, {} files ({}) read in {seconds:.1} s: ",
        if results == 1 { "" } else { "s" },
        report.nodes.iter().map(|node| node.checks.len()).sum::<usize>(),
        report.files,
        size(report.bytes)
    );
    text += &match fails {
        0 => "all hold".to_string(),
        1 => "1 does not hold".to_string(),
        n => format!("{n} do not hold"),
    };
    if gone > 0 {
        write!(text, "; the bytes of {gone} were collected and cannot be looked at").expect("a string takes all text");
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
