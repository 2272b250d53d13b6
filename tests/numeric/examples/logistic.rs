//! Fits multinomial logistic regressions and measures the time; `benches/logistic.py` compares it with scikit-learn.
//!
//!     cargo run --release --example logistic -- FILE TOLERANCE THREADS STRENGTH…
//!
//! FILE is safetensors with `features` f32 [n, d] and `labels` i64 [n]. The strengths are fitted in the given order,
//! each starting from the previous results. Prints one JSON object: seconds, and for each strength the objective,
//! steps, passes over the features and the predicted labels.

use anyhow::{Context as _, Result, ensure};
use caco_kinds::Determinism;
use caco_learn::{
    device,
    eval::{linear::likeliest, logistic::Regression},
    tensors::Tensors,
};
use std::{path::Path, time::Instant};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(arguments.len() > 3, "usage: logistic FILE TOLERANCE THREADS STRENGTH…");
    let strengths = arguments[3..].iter().map(|s| s.parse()).collect::<Result<Vec<f64>, _>>().context("strengths")?;
    let tolerance: f64 = arguments[1].parse().context("tolerance")?;
    device::open("cpu", arguments[2].parse().context("threads")?, Determinism::Fast)?;
    let file = Tensors::read(Path::new(&arguments[0]))?;
    let tensor = |name: &str| file.tensors.get(name).with_context(|| format!("{} has no '{name}'", arguments[0]));
    let (features, labels) = (tensor("features")?, tensor("labels")?);
    let classes = labels.max().int64_value(&[]) + 1;
    let started = Instant::now();
    let mut regression = Regression::new(features, labels, classes)?;
    let fits = strengths.iter().map(|s| regression.fit(*s, tolerance)).collect::<Result<Vec<_>>>()?;
    let seconds = started.elapsed().as_secs_f64();
    let mut reports = vec![];
    for (strength, fit) in strengths.iter().zip(&fits) {
        reports.push(serde_json::json!({
            "strength": strength,
            "objective": fit.objective,
            "steps": fit.steps,
            "evaluations": fit.evaluations,
            "predicted": likeliest(&fit.classifier.scores(features), 1)?,
        }));
    }
    println!("{}", serde_json::json!({ "seconds": seconds, "fits": reports }));
    Ok(())
}
