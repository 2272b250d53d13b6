//! Recomputes figures: the metrics of an evaluation from its predictions, and a comparison from metrics and
//! predictions.

use anyhow::{Context, Result};
use caco_kinds::Compare;
use caco_measure::{
    metric::{self, Metric},
    predictions::Predictions,
};
use caco_report::{assemble, comparison::Comparison};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How much two computations of one figure may differ: logarithms of different C libraries differ in their last digit.
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

/// Checks that the metrics that follow from predictions are the stored ones. A file without predictions in this
/// program's format is not one of our evaluations, and an error.
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
                "{}: {} on {} is {}, but the predictions give {}",
                metrics.display(),
                figure.name,
                figure.split,
                found.value,
                figure.value
            )),
            None => Some(format!("{}: {} on {} is missing", metrics.display(), figure.name, figure.split)),
        }
    };
    let faults: Vec<String> = computed.iter().filter_map(fault).collect();
    if faults.is_empty() {
        let names: Vec<&str> = computed.iter().map(|figure| figure.name.as_str()).collect();
        return Ok(format!("{} follow from {} predictions", names.join(", "), answers.samples()));
    }
    Err(faults)
}

/// Checks that a comparison follows from its inputs, and that all its formats agree.
pub(super) fn comparison(
    parameters: &str,
    input: &dyn Fn(&str) -> Option<PathBuf>,
    output: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<String, Vec<String>> {
    compute(parameters, input, output).map_err(|error| vec![format!("{error:#}")]).and_then(|(figures, faults)| {
        let message = format!("{figures} figures follow from the predictions of their evaluations");
        if faults.is_empty() { Ok(message) } else { Err(faults) }
    })
}

fn compute(
    parameters: &str,
    input: &dyn Fn(&str) -> Option<PathBuf>,
    output: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<(usize, Vec<String>)> {
    let parameters: Compare =
        serde_json::from_str(parameters).context("its parameters are not those of a comparison")?;
    let input = |slot: &str| input(slot).with_context(|| format!("the bytes of input {slot} are missing or damaged"));
    let computed = assemble::compare(&parameters, &input)?;
    let path = output("json").context("it has no output json")?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stored: Comparison =
        serde_json::from_str(&text).with_context(|| format!("{} is not a comparison", path.display()))?;
    let mut faults = vec![];
    let (a, b) = (serde_json::to_value(&stored)?, serde_json::to_value(&computed)?);
    differences("", &a, &b, &mut |place, a, b| {
        faults.push(format!("{}: {place} is {a}, but the predictions give {b}", path.display()));
    });
    for (name, (_, form)) in ["json", "markdown", "csv", "latex"].iter().zip(stored.files()?) {
        let path = output(name).with_context(|| format!("it has no output {name}"))?;
        if fs::read(&path).with_context(|| format!("cannot read {}", path.display()))? != form.as_bytes() {
            faults.push(format!("{}: it is not the {name} format of the comparison", path.display()));
        }
    }
    let figures = computed.lines.iter().flat_map(|line| &line.cells).filter(|cell| cell.measured.is_some()).count();
    Ok((figures, faults))
}

/// Reports every place where two values differ by more than rounding.
fn differences(place: &str, a: &Value, b: &Value, report: &mut dyn FnMut(&str, &Value, &Value)) {
    match (a, b) {
        (Value::Number(x), Value::Number(y))
            if close(x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN)) => {}
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().for_each(|(i, (a, b))| differences(&format!("{place}[{i}]"), a, b, report));
        }
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            for (name, a) in x {
                let dot = if place.is_empty() { "" } else { "." };
                differences(&format!("{place}{dot}{name}"), a, &y[name], report);
            }
        }
        _ if a == b => {}
        _ => report(place, a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, serialize, tensor::TensorView};
    use std::collections::HashMap;

    /// Answers of an evaluation, and the metrics that follow, as two files.
    fn evaluation(folder: &Path, name: &str, answers: &[i64]) -> [PathBuf; 2] {
        let bytes = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (labels, answers) = (bytes(&[0, 1, 1, 0]), bytes(answers));
        let tensors = [
            ("labels", TensorView::new(Dtype::I64, vec![4], &labels).unwrap()),
            ("answers", TensorView::new(Dtype::I64, vec![4, 1], &answers).unwrap()),
        ];
        let said = [("evaluation", "knn"), ("split", "test"), ("images", "ab"), ("classes", r#"["a","b"]"#)];
        let mut said: HashMap<String, String> = said.map(|(name, value)| (name.into(), value.into())).into();
        said.insert("figures".into(), r#"["top1","mean_per_class"]"#.into());
        let paths = [".safetensors", ".jsonl"].map(|ending| folder.join(format!("{name}{ending}")));
        fs::write(&paths[0], serialize(tensors, Some(said)).unwrap()).unwrap();
        metric::write(&paths[1], &Predictions::read(&paths[0]).unwrap().metrics()).unwrap();
        paths
    }

    #[test]
    fn a_metric_that_does_not_follow_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let [predictions, stored] = evaluation(folder.path(), "a", &[0, 1, 0, 0]);
        assert_eq!(metrics(&predictions, &stored).unwrap(), "top1, mean_per_class follow from 4 predictions");
        let text = fs::read_to_string(&stored).unwrap();
        fs::write(&stored, text.replacen("0.75", "0.95", 1)).unwrap();
        assert!(metrics(&predictions, &stored).unwrap_err()[0].contains("is 0.95, but the predictions give 0.75"));
        fs::write(&stored, text.lines().next().unwrap()).unwrap();
        assert!(metrics(&predictions, &stored).unwrap_err()[0].contains("mean_per_class on test is missing"));
    }

    #[test]
    fn a_comparison_that_does_not_follow_or_has_another_format_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("0.0", [0, 1, 0, 0]), ("1.0", [0, 1, 1, 0])]
            .map(|(slot, answers)| (slot, evaluation(folder.path(), slot, &answers)));
        let input = |slot: &str| {
            let (found, [predictions, metrics]) = files.iter().find(|(name, _)| slot.starts_with(name))?;
            Some(if slot == *found { metrics.clone() } else { predictions.clone() })
        };
        let parameters =
            r#"{"baseline": "base", "rows": [{"name": "base", "results": ["a"]}, {"name": "ours", "results": ["b"]}]}"#;
        let compare: Compare = serde_json::from_str(parameters).unwrap();
        let made = assemble::compare(&compare, &|slot| Ok(input(slot).unwrap())).unwrap();
        let output = |name: &str| Some(folder.path().join(name));
        for (name, (_, text)) in ["json", "markdown", "csv", "latex"].iter().zip(made.files().unwrap()) {
            fs::write(output(name).unwrap(), text).unwrap();
        }
        assert!(comparison(parameters, &input, &output).unwrap().starts_with("4 figures follow"));
        let spoil = |name: &str, from: &str, to: &str| {
            let path = output(name).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let faults = comparison(parameters, &input, &output).unwrap_err();
            fs::write(&path, text).unwrap();
            faults
        };
        let faults = spoil("markdown", "100.0", "99.0");
        assert!(faults.len() == 1 && faults[0].contains("is not the markdown format"), "{faults:?}");
        let faults = spoil("json", "\"value\": 0.75", "\"value\": 0.85");
        assert!(
            faults[0].contains("lines[0].cells[0].measured.value is 0.85, but the predictions give 0.75"),
            "{faults:?}"
        );
    }
}
