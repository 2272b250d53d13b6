//! Whether tables are the published ones, in words.

use caco_inspect::expectation::{Expectation, Verdict};
use caco_report::difference::Differing;
use std::fmt::Write;

/// One line; where a table differs, more: the cells, the digests, and how to find the cause.
pub fn text(of: &Expectation) -> String {
    let stage = &of.stage;
    match &of.verdict {
        Verdict::Equal => format!("{stage}: equal to the published one"),
        Verdict::NotCompared { why } => format!("{stage}: not compared with the published one: {why}"),
        Verdict::Differs { cells, of: all, classes, trainings } => {
            let mut text = format!("{stage}: differs from the published one");
            match (cells.as_ref().map(Vec::len), all) {
                (Some(0), _) => text += ", but every value is the same",
                (Some(n), Some(all)) => write!(text, " in {n} of {all} cells").expect("a string takes all text"),
                _ => {}
            }
            cells.iter().flatten().for_each(|cell| text += &format!("\n  {}", differing(cell)));
            write!(text, "\n  published  blake3:{}", of.published).expect("a string takes all text");
            if let Some(found) = of.found {
                write!(text, "\n  here       blake3:{found}").expect("a string takes all text");
            }
            classes.iter().for_each(|class| text += &format!("\n  computed under {class}"));
            text + "\n" + &help(trainings)
        }
    }
}

/// A cell with its values, of which an empty one is not in that table.
fn differing(cell: &Differing) -> String {
    let or_none = |text: &str| if text.is_empty() { "none".to_string() } else { text.into() };
    let values = cell.values.iter();
    let values = values.map(|v| format!("{} {} → {}", v.name, or_none(&v.published), or_none(&v.found)));
    let of = format!("{}, {} {}", cell.line, cell.evaluation, cell.metric);
    format!("{}: {}", of.trim_end_matches([',', ' ']), values.collect::<Vec<_>>().join(", "))
}

/// A table is as repeatable as the trainings behind it.
fn help(trainings: &[String]) -> String {
    let other = "help: results of another determinism class may have other bytes";
    match trainings.first() {
        Some(first) => {
            format!("{other}; `caco audit {first} --rerun --locate` says whether this machine gives the same twice")
        }
        None => other.into(),
    }
}
