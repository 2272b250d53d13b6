//! A comparison: data, and its forms for terminals, Markdown, spreadsheets and papers.

use crate::metric::Metric;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Figures side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The line that the others are compared with.
    pub baseline: Option<String>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One encoder's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// Its figures.
    pub cells: Vec<Cell>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The kind of evaluation.
    pub evaluation: String,
    /// The number; accuracies are shares.
    pub metric: Metric,
    /// Ours less the baseline's on the same images, and its 95 % interval.
    pub difference: Option<(f64, (f64, f64))>,
    /// What was published.
    pub claim: Option<Claim>,
}

/// A published figure beside ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The figure, per cent.
    pub per_cent: f64,
    /// Where it stands.
    pub source: String,
    /// Whether it was read in another text that quotes it.
    pub second_hand: bool,
    /// How ours compares.
    pub verdict: Verdict,
}

/// How a figure compares with a claim, by its 95 % interval and a margin of equivalence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval lies within the margin.
    Reproduced,
    /// The whole interval lies above it.
    Exceeded,
    /// The whole interval lies below it.
    FellShort,
    /// The interval crosses an end of the margin.
    Undecided,
}

impl Verdict {
    /// The verdict on an interval against a claim and a margin, all shares. The interval is over images; what another
    /// seed would give is not in it.
    pub fn of(claim: f64, interval: Option<(f64, f64)>, margin: f64) -> Verdict {
        match interval {
            Some((low, _)) if low > claim + margin => Verdict::Exceeded,
            Some((_, high)) if high < claim - margin => Verdict::FellShort,
            Some((low, high)) if low >= claim - margin && high <= claim + margin => Verdict::Reproduced,
            _ => Verdict::Undecided,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Verdict::Reproduced => "reproduced",
            Verdict::Exceeded => "exceeded",
            Verdict::FellShort => "fell short",
            Verdict::Undecided => "undecided",
        }
    }
}

const HEADINGS: [&str; 8] =
    ["encoder", "evaluation", "metric", "images", "%", "95 % interval", "over baseline (95 % interval)", "claimed"];

impl Comparison {
    fn rows(&self) -> Vec<[String; 8]> {
        let row = |line: &Line, cell: &Cell| {
            let m = &cell.metric;
            let per_cent = |share: f64| format!("{:.1}", 100.0 * share);
            let interval =
                m.interval.map_or(String::new(), |(low, high)| format!("{} – {}", per_cent(low), per_cent(high)));
            let difference = cell.difference.map_or(String::new(), |(d, (low, high))| {
                format!("{:+.1} ({:+.1} – {:+.1})", 100.0 * d, 100.0 * low, 100.0 * high)
            });
            let claim = cell.claim.as_ref().map_or(String::new(), |c| {
                let second_hand = if c.second_hand { ", second-hand" } else { "" };
                format!("{:.1} ({}{second_hand}): {}", c.per_cent, c.source, c.verdict.words())
            });
            let images = m.samples.map_or(String::new(), |n| n.to_string());
            [
                line.name.clone(),
                cell.evaluation.clone(),
                m.name.clone(),
                images,
                per_cent(m.value),
                interval,
                difference,
                claim,
            ]
        };
        self.lines.iter().flat_map(|line| line.cells.iter().map(move |cell| row(line, cell))).collect()
    }

    /// The headings and rows that hold anything: a column that is empty throughout is left out.
    fn table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let rows = self.rows();
        let used: Vec<usize> = (0..HEADINGS.len()).filter(|i| rows.iter().any(|row| !row[*i].is_empty())).collect();
        let pick = |row: &[String; 8]| used.iter().map(|i| row[*i].clone()).collect();
        (used.iter().map(|i| HEADINGS[*i]).collect(), rows.iter().map(pick).collect())
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let (headings, rows) = self.table();
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(headings);
        let mut last = String::new();
        for mut row in rows {
            // An encoder's name stands once, at its first line.
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

    /// For spreadsheets: shares with all their digits.
    pub fn csv(&self) -> String {
        let quoted = |s: &str| {
            if s.contains([',', '"', '\n']) { format!("\"{}\"", s.replace('"', "\"\"")) } else { s.to_string() }
        };
        let mut text = String::from(
            "encoder,evaluation,metric,split,samples,value,low,high,difference,difference_low,difference_high,claimed_per_cent,source,second_hand,verdict\n",
        );
        for (line, cell) in self.lines.iter().flat_map(|line| line.cells.iter().map(move |cell| (line, cell))) {
            let m = &cell.metric;
            let number = |n: Option<f64>| n.map_or(String::new(), |n| n.to_string());
            let claim = cell.claim.as_ref();
            let fields = [
                quoted(&line.name),
                cell.evaluation.clone(),
                m.name.clone(),
                m.split.clone(),
                m.samples.map_or(String::new(), |n| n.to_string()),
                m.value.to_string(),
                number(m.interval.map(|i| i.0)),
                number(m.interval.map(|i| i.1)),
                number(cell.difference.map(|d| d.0)),
                number(cell.difference.map(|d| d.1.0)),
                number(cell.difference.map(|d| d.1.1)),
                number(claim.map(|c| c.per_cent)),
                quoted(claim.map_or("", |c| &c.source)),
                claim.map_or(String::new(), |c| c.second_hand.to_string()),
                claim.map_or(String::new(), |c| c.verdict.words().into()),
            ];
            writeln!(text, "{}", fields.join(",")).expect("a string takes all text");
        }
        text
    }

    /// For LaTeX, with the package booktabs.
    pub fn latex(&self) -> String {
        let (headings, rows) = self.table();
        let escaped = |s: &str| {
            s.replace('%', "\\%").replace('_', "\\_").replace('&', "\\&").replace('–', "--").replace('#', "\\#")
        };
        let line =
            |cells: &[String]| format!("{} \\\\\n", cells.iter().map(|c| escaped(c)).collect::<Vec<_>>().join(" & "));
        let mut text = format!("\\begin{{tabular}}{{{}}}\n\\toprule\n", "l".repeat(headings.len()));
        text += &line(&headings.iter().map(|h| h.to_string()).collect::<Vec<_>>());
        text += "\\midrule\n";
        rows.iter().for_each(|row| text += &line(row));
        text + "\\bottomrule\n\\end{tabular}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        let cell = |right, difference, claim| Cell {
            evaluation: "linear_eval".into(),
            metric: Metric::share("top1", "test", right, 2000),
            difference,
            claim,
        };
        let claim = Claim {
            per_cent: 71.3,
            source: "the paper, table 1".into(),
            second_hand: true,
            verdict: Verdict::Undecided,
        };
        let lines = vec![
            Line { name: "untrained".into(), cells: vec![cell(900, None, None)] },
            Line { name: "long, \"best\"".into(), cells: vec![cell(1400, Some((0.25, (0.22, 0.28))), Some(claim))] },
        ];
        Comparison { baseline: Some("untrained".into()), lines }
    }

    #[test]
    fn every_form_holds_every_figure() {
        let c = comparison();
        insta::assert_snapshot!([c.terminal(), c.markdown(), c.csv(), c.latex()].join("\n"));
    }

    #[test]
    fn verdicts_go_by_the_interval_and_the_margin() {
        let verdict = |low, high| Verdict::of(0.7, Some((low, high)), 0.02);
        assert_eq!(verdict(0.69, 0.71), Verdict::Reproduced);
        assert_eq!(verdict(0.73, 0.75), Verdict::Exceeded);
        assert_eq!(verdict(0.60, 0.67), Verdict::FellShort);
        assert_eq!(verdict(0.67, 0.71), Verdict::Undecided);
        assert_eq!(Verdict::of(0.7, None, 0.02), Verdict::Undecided);
    }
}
