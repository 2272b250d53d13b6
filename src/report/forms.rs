//! Formats a comparison for terminals, Markdown, spreadsheets and papers.

use super::comparison::{Cell, Claim, Comparison, Line};
use std::{borrow::Cow, fmt::Write};

const HEADINGS: [&str; 9] = [
    "encoder",
    "evaluation",
    "metric",
    "images",
    "runs",
    "%",
    "95 % interval",
    "over baseline (95 % interval)",
    "claimed",
];

/// The columns of the CSV file.
pub(super) const FIELDS: &str = "encoder,evaluation,metric,split,samples,runs,value,low,high,difference,difference_low,\
                      difference_high,claimed_per_cent,margin,source,second_hand,verdict,note";

fn per_cent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

impl Claim {
    fn words(&self) -> String {
        let second_hand = if self.second_hand { ", second-hand" } else { "" };
        let note = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        let figure = self.per_cent.map_or("no figure known".into(), |value| format!("{value:.1}"));
        format!("{figure} ({}{second_hand}): {}{note}", self.source, self.verdict.words())
    }
}

impl Comparison {
    /// Every metric with its line. A line that was not run and has no claims gets an empty one.
    fn cells(&self) -> Vec<(&Line, Cow<'_, Cell>)> {
        let mut cells = vec![];
        for line in &self.lines {
            if line.cells.is_empty() && line.not_run.is_some() {
                cells.push((line, Cow::Owned(Cell::default())));
            }
            cells.extend(line.cells.iter().map(|cell| (line, Cow::Borrowed(cell))));
        }
        cells
    }

    fn row(line: &Line, cell: &Cell) -> [String; 9] {
        let why = || line.not_run.as_ref().map_or(String::new(), |why| format!("not run ({why})"));
        let measured = cell.measured.as_ref();
        let interval = measured.and_then(|m| m.interval);
        let difference = cell
            .difference
            .map(|(d, (low, high))| format!("{:+.1} ({:+.1} – {:+.1})", 100.0 * d, 100.0 * low, 100.0 * high));
        [
            line.name.clone(),
            cell.evaluation.clone(),
            cell.metric.clone(),
            measured.and_then(|m| m.samples).map_or(String::new(), |n| n.to_string()),
            if cell.runs.is_empty() { String::new() } else { cell.runs.len().to_string() },
            measured.map_or(String::new(), |m| per_cent(m.value)),
            interval.map_or(String::new(), |(low, high)| format!("{} – {}", per_cent(low), per_cent(high))),
            difference.unwrap_or_default(),
            cell.claim.as_ref().map_or_else(why, Claim::words),
        ]
    }

    /// The headings and rows, without empty columns.
    fn table(&self) -> (Vec<&str>, Vec<Vec<String>>) {
        let rows: Vec<[String; 9]> = self.cells().iter().map(|(line, cell)| Self::row(line, cell)).collect();
        let used: Vec<usize> = (0..HEADINGS.len()).filter(|i| rows.iter().any(|row| !row[*i].is_empty())).collect();
        let pick = |row: &[String; 9]| used.iter().map(|i| row[*i].clone()).collect();
        (used.iter().map(|i| HEADINGS[*i]).collect(), rows.iter().map(pick).collect())
    }

    /// All stored formats, by file name.
    pub fn files(&self) -> serde_json::Result<[(&'static str, String); 4]> {
        Ok([
            ("comparison.json", serde_json::to_string_pretty(self)? + "\n"),
            ("comparison.md", self.markdown()),
            ("comparison.csv", self.csv()),
            ("comparison.tex", self.latex()),
        ])
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let (headings, rows) = self.table();
        Self::drawn(&headings, rows)
    }

    /// For a terminal, with an additional column. `cell` is called for each row with whether the row has a measured
    /// metric.
    pub fn terminal_beside(&self, heading: &str, cell: &mut dyn FnMut(bool) -> String) -> String {
        let (mut headings, mut rows) = self.table();
        headings.push(heading);
        for (row, (_, figure)) in rows.iter_mut().zip(self.cells()) {
            row.push(cell(figure.measured.is_some()));
        }
        Self::drawn(&headings, rows)
    }

    fn drawn(headings: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(comfy_table::ContentArrangement::Dynamic)
            .set_header(headings);
        let mut last = String::new();
        for mut row in rows {
            // The name of an encoder is shown only in its first row.
            let name = std::mem::replace(&mut last, row[0].clone());
            if name == row[0] {
                row[0].clear();
            }
            table.add_row(row);
        }
        table.to_string()
    }

    /// For Markdown.
    pub fn markdown(&self) -> String {
        let (headings, rows) = self.table();
        let line = |cells: &[String]| {
            format!("| {} |\n", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let mut text = line(&headings.iter().map(|h| h.to_string()).collect::<Vec<_>>());
        text += &line(&vec!["---".to_string(); headings.len()]);
        rows.iter().for_each(|row| text += &line(row));
        text
    }

    /// For spreadsheets: fractions with all digits.
    pub fn csv(&self) -> String {
        let mut text = format!("{FIELDS}\n");
        for record in self.records() {
            writeln!(text, "{}", record.map(|field| quoted(&field)).join(",")).expect("a string takes all text");
        }
        text
    }

    /// Every cell in the order of [`FIELDS`].
    pub(super) fn records(&self) -> Vec<[String; 18]> {
        self.cells().iter().map(|(line, cell)| fields(line, cell)).collect()
    }

    /// For LaTeX with the package booktabs.
    pub fn latex(&self) -> String {
        let (headings, rows) = self.table();
        let line =
            |cells: &[String]| format!("{} \\\\\n", cells.iter().map(|c| escaped(c)).collect::<Vec<_>>().join(" & "));
        let mut text = format!("\\begin{{tabular}}{{{}}}\n\\toprule\n", "l".repeat(headings.len()));
        text += &line(&headings.iter().map(|h| h.to_string()).collect::<Vec<_>>());
        text += "\\midrule\n";
        rows.iter().for_each(|row| text += &line(row));
        text + "\\bottomrule\n\\end{tabular}\n"
    }
}

/// One cell in the order of [`FIELDS`].
fn fields(line: &Line, cell: &Cell) -> [String; 18] {
    let number = |n: Option<f64>| n.map_or(String::new(), |n| n.to_string());
    let (measured, claim) = (cell.measured.as_ref(), cell.claim.as_ref());
    let interval = measured.and_then(|m| m.interval);
    let said = |of: fn(&Claim) -> String| claim.map_or(String::new(), of);
    [
        line.name.clone(),
        cell.evaluation.clone(),
        cell.metric.clone(),
        measured.map_or(String::new(), |m| m.split.clone()),
        measured.and_then(|m| m.samples).map_or(String::new(), |n| n.to_string()),
        measured.map_or(String::new(), |_| cell.runs.len().max(1).to_string()),
        number(measured.map(|m| m.value)),
        number(interval.map(|i| i.0)),
        number(interval.map(|i| i.1)),
        number(cell.difference.map(|d| d.0)),
        number(cell.difference.map(|d| d.1.0)),
        number(cell.difference.map(|d| d.1.1)),
        number(claim.and_then(|c| c.per_cent)),
        number(claim.map(|c| c.margin)),
        said(|c| c.source.clone()),
        said(|c| c.second_hand.to_string()),
        claim.map_or_else(|| line.not_run.as_ref().map_or("", |_| "not run"), |c| c.verdict.words()).into(),
        claim.map(|c| c.note.clone()).or_else(|| line.not_run.clone()).unwrap_or_default(),
    ]
}

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// Escapes the special characters of LaTeX.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | '_' | '&' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '–' => out.push_str("--"),
            '±' => out.push_str("$\\pm$"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;
    use caco_measure::metric::Metric;

    fn comparison() -> Comparison {
        let cell = |right, difference, claim| Cell {
            evaluation: "linear_eval".into(),
            metric: "top1".into(),
            measured: Some(Metric::share("top1", "test", right, 2000)),
            runs: vec![],
            difference,
            claim,
        };
        let claim = |verdict, note: &str| Claim {
            per_cent: Some(71.3),
            margin: 1.0,
            source: "the paper, table 1".into(),
            second_hand: true,
            verdict,
            note: note.into(),
        };
        let undecided = claim(Verdict::Undecided, "within ±1 points; about 3 more seeds would decide");
        let seeds = Cell { runs: vec![0.69, 0.7, 0.71], ..cell(1400, Some((0.25, (0.22, 0.28))), Some(undecided)) };
        let not_run = Cell { measured: None, ..cell(0, None, Some(claim(Verdict::NotRun, "no images here"))) };
        let lines = vec![
            Line { name: "untrained".into(), cells: vec![cell(900, None, None)], not_run: None },
            Line { name: "long, \"best\" | 100%".into(), cells: vec![seeds], not_run: None },
            Line { name: "800_epochs".into(), cells: vec![not_run], not_run: Some("no images here".into()) },
            Line { name: "cooperative".into(), cells: vec![], not_run: Some("collapsed".into()) },
        ];
        Comparison { baseline: Some("untrained".into()), lines }
    }

    #[test]
    fn every_form_holds_every_figure() {
        let c = comparison();
        insta::assert_snapshot!([c.markdown(), c.csv(), c.latex()].join("\n"));
    }

    #[test]
    fn the_terminal_fits_its_width_and_names_each_line_once() {
        let text = comparison().terminal();
        for part in ["untrained", "70.0", "42.8 – 47.2", "+25.0 (+22.0 – +28.0)", "no images here"] {
            assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(text.matches("untrained").count(), 1);
    }

    #[test]
    fn a_spreadsheet_has_one_field_per_heading() {
        let text = comparison().csv();
        // The only other commas are in quoted fields.
        let outside = |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
        let counts: Vec<usize> = text.lines().map(outside).collect();
        assert!(counts.iter().all(|count| *count == 17), "{counts:?}");
    }
}
