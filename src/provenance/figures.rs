//! Figures, computed again: the metrics of an evaluation from its predictions, a comparison from metrics and predictions.

use crate::{
    metric::{self, Metric},
    predictions::Predictions,
    report::{assemble, comparison::Comparison},
    spec::kind::Compare,
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How far two computations of one figure may be apart: logarithms of other C libraries differ in their last digit.
const CLOSE: f64 = 1e-9;

fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= CLOSE * a.abs().max(b.abs()).max(1.0)
}

fn same(a: &Metric, b: &Metric) -> bool {
    let intervals = match (a.interval, b.interval) {
        (None, None) => true,
        (Some((a, b)), Some((c, d))) => close(a, c) && close(b, d),
        _ => false,
    };
    intervals && close(a.value, b.value) && a.samples == b.samples
}

/// The metrics that follow from predictions are the stored ones. A file that holds no predictions in this program's form
/// is no evaluation of ours: there is nothing to compute.
pub(super) fn metrics(predictions: &Path, metrics: &Path) -> Result<String, Vec<String>> {
    let one = |error: anyhow::Error| vec![format!("{error:#}")];
    let answers = Predictions::read(predictions).map_err(one)?;
    let read = metric::read(metrics).with_context(|| format!("cannot read {}", metrics.display()));
    let stored = read.map_err(one)?;
    let computed = answers.metrics();
    let fault = |figure: &Metric| {
        let found = stored.iter().find(|m| m.name == figure.name && m.split == figure.split);
        match found {
            Some(found) if same(found, figure) => None,
            Some(found) => Some(format!(
                "{}: {} on {} is {} there, the predictions give {}",
                metrics.display(),
                figure.name,
                figure.split,
                found.value,
                figure.value
            )),
            None => Some(format!("{}: {} on {} is not there", metrics.display(), figure.name, figure.split)),
        }
    };
    let faults: Vec<String> = computed.iter().filter_map(fault).collect();
    if faults.is_empty() {
        let names: Vec<&str> = computed.iter().map(|figure| figure.name.as_str()).collect();
        return Ok(format!("{} follow from {} predictions", names.join(", "), answers.samples()));
    }
    Err(faults)
}

/// A comparison is the one that its inputs give, and all its forms are those of one comparison.
pub(super) fn comparison(
    parameters: &str,
    input: &dyn Fn(&str) -> Option<PathBuf>,
    output: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<String, Vec<String>> {
    compute(parameters, input, output).map_err(|error| vec![format!("{error:#}")]).and_then(|(figures, faults)| {
        let told = format!("{figures} figures follow from the predictions of their evaluations");
        if faults.is_empty() { Ok(told) } else { Err(faults) }
    })
}

fn compute(
    parameters: &str,
    input: &dyn Fn(&str) -> Option<PathBuf>,
    output: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<(usize, Vec<String>)> {
    let parameters: Compare =
        serde_json::from_str(parameters).context("its parameters are not those of a comparison")?;
    let input = |slot: &str| input(slot).with_context(|| format!("input {slot} cannot be read"));
    let computed = assemble::compare(&parameters, &input)?;
    let path = output("json").context("it has no output json")?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stored: Comparison =
        serde_json::from_str(&text).with_context(|| format!("{} is no comparison", path.display()))?;
    let mut faults = vec![];
    let (a, b) = (serde_json::to_value(&stored)?, serde_json::to_value(&computed)?);
    differences("", &a, &b, &mut |place, a, b| {
        faults.push(format!("{}: {place} is {a} there, the predictions give {b}", path.display()));
    });
    for (name, (_, form)) in ["json", "markdown", "csv", "latex"].iter().zip(stored.files()?) {
        let path = output(name).with_context(|| format!("it has no output {name}"))?;
        if fs::read(&path).with_context(|| format!("cannot read {}", path.display()))? != form.as_bytes() {
            faults.push(format!("{}: it is not the {name} form of the comparison", path.display()));
        }
    }
    let figures = computed.lines.iter().flat_map(|line| &line.cells).filter(|cell| cell.measured.is_some()).count();
    Ok((figures, faults))
}

/// Every place where two values differ by more than rounding.
fn differences(place: &str, a: &Value, b: &Value, told: &mut dyn FnMut(&str, &Value, &Value)) {
    match (a, b) {
        (Value::Number(x), Value::Number(y))
            if close(x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN)) => {}
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().for_each(|(i, (a, b))| differences(&format!("{place}[{i}]"), a, b, told));
        }
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            for (name, a) in x {
                let dot = if place.is_empty() { "" } else { "." };
                differences(&format!("{place}{dot}{name}"), a, &y[name], told);
            }
        }
        _ if a == b => {}
        _ => told(place, a, b),
    }
}
