//! Renders an audit as a tree of ticks and crosses.

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

/// The tree below every requested result. A result that several others read is shown in full only once.
pub fn text(report: &Report) -> String {
    let mut tree = Tree { report, seen: vec![false; report.nodes.len()], text: String::new() };
    // Start with those that no other result was computed from: the others appear below them.
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
    /// Renders a node: `head` is the prefix of its own line, `below` that of all lines under it.
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
            let message = shorten(&check.message);
            self.line(&format!("{below}{bar}  {} {}: {message}", check.state.mark(), check.check));
        }
        if let Some(figures) = node.checks.iter().find(|c| c.check == "figures" && c.state == State::Pass) {
            self.line(&format!("{below}{bar}  ✓ {}", figures.message));
        }
        let count = sources.len();
        for (k, source) in sources.into_iter().enumerate() {
            let last = k + 1 == count;
            let (branch, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            match source {
                Source::Node(i) => self.node(i, "", &format!("{below}{branch}"), &format!("{below}{rest}")),
                Source::Path(path) => self.line(&format!("{below}{branch}{}", relative(&path))),
                Source::Nowhere => self.line(&format!("{below}{branch}unknown source")),
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

/// Makes paths below the current folder relative.
fn shorten(text: &str) -> String {
    match std::env::current_dir() {
        Ok(here) => text.replace(&format!("{}/", here.display()), ""),
        Err(_) => text.into(),
    }
}

fn relative(path: &Path) -> String {
    shorten(&path.display().to_string())
}

/// The outcome in one line.
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
        0 => "all passed".to_string(),
        1 => "1 failed".to_string(),
        n => format!("{n} failed"),
    };
    if gone > 0 {
        write!(text, "; the bytes of {gone} were collected and cannot be checked").expect("a string takes all text");
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
