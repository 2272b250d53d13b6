//! Compares metrics with independent computations by `tests/reference/evaluation.py`, which documents them.

use caco_kinds::TransferClassifier;
use caco_learn::{
    eval::{
        knn::{Vote, classify},
        linear::likeliest,
        logistic::Regression,
        one_vs_rest::{OneVsRest, prepared},
    },
    tensors::Tensors,
};
use caco_measure::predictions::{Answers, Figure, Predictions};
use caco_measure::score::{mean_average_precision, rankings};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

const CLASSES: usize = 7;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference").join(name)
}

struct Reference {
    train: (Tensor, Vec<i64>),
    test: (Tensor, Vec<i64>),
    expected: Value,
}

fn reference() -> Reference {
    let tensors = Tensors::read(&file("features.safetensors")).unwrap().tensors;
    let part = |name: &str| {
        let labels = Vec::<i64>::try_from(&tensors[&format!("{name}_labels")]).unwrap();
        (tensors[name].shallow_clone(), labels)
    };
    let expected = serde_json::from_slice(&std::fs::read(file("evaluation.json")).unwrap()).unwrap();
    Reference { train: part("train"), test: part("test"), expected }
}

#[test]
fn neighbours_vote_as_in_scikit_learn() {
    let Reference { train, test, expected } = reference();
    for case in expected["knn"].as_array().unwrap() {
        let vote = Vote { k: case["k"].as_u64().unwrap() as u32, temperature: case["temperature"].as_f64().unwrap() };
        let answers = classify(&train.0, &train.1, &test.0, CLASSES, vote).unwrap();
        let theirs: Vec<i64> = serde_json::from_value(case["answers"].clone()).unwrap();
        assert_eq!(answers, theirs, "{vote:?}");
    }
}

#[test]
fn regressions_match_scikit_learn() {
    let Reference { train, test, expected } = reference();
    let mut regression = Regression::new(&train.0, &Tensor::from_slice(&train.1), CLASSES as i64).unwrap();
    for case in expected["logistic"].as_array().unwrap() {
        let fit = regression.fit(case["strength"].as_f64().unwrap(), 1e-11).unwrap();
        let objective = case["objective"].as_f64().unwrap();
        assert!((fit.objective / objective - 1.0).abs() < 1e-10, "{} {objective}", fit.objective);
        let theirs: Vec<Vec<f64>> = serde_json::from_value(case["scores"].clone()).unwrap();
        let apart = fit.classifier.scores(&test.0) - Tensor::from_slice2(&theirs);
        let apart = apart.abs().max().double_value(&[]);
        // A weaker penalty has a flatter minimum.
        assert!(apart < 1e-3, "strength {}: scores are {apart} apart", case["strength"]);
    }
}

#[test]
fn one_vs_rest_classifiers_match_scikit_learn() {
    let Reference { train, expected, .. } = reference();
    let shown: Vec<bool> =
        train.1.iter().flat_map(|label| (0..CLASSES as i64).map(move |class| class == *label)).collect();
    for case in expected["one_vs_rest"].as_array().unwrap() {
        let kind: TransferClassifier = serde_json::from_value(case["kind"].clone()).unwrap();
        let (class, strength) = (case["class"].as_u64().unwrap() as usize, case["strength"].as_f64().unwrap());
        let learner = OneVsRest::new(&prepared(&train.0.to_kind(Kind::Double), kind), &shown, CLASSES, kind).unwrap();
        let (weights, bias) = learner.fit(class, &[strength], 1e-11).unwrap().remove(0);
        let theirs: Vec<f64> = serde_json::from_value(case["weights"].clone()).unwrap();
        let apart = (weights - Tensor::from_slice(&theirs)).abs().max().double_value(&[]);
        let apart = apart.max((bias - case["bias"].as_f64().unwrap()).abs());
        assert!(apart < 1e-4, "{kind:?}, class {class}, strength {strength}: {apart} apart");
    }
}

#[test]
fn metrics_match_scikit_learn() {
    let Reference { test, expected, .. } = reference();
    for case in expected["logistic"].as_array().unwrap() {
        let scores: Vec<Vec<f64>> = serde_json::from_value(case["scores"].clone()).unwrap();
        let scores = Tensor::from_slice2(&scores);
        let predictions = Predictions {
            evaluation: "linear_eval".into(),
            split: "test".into(),
            images: None,
            classes: (0..CLASSES).map(|class| class.to_string()).collect(),
            figures: vec![Figure::Top1, Figure::Top5, Figure::MeanPerClass],
            answers: Answers::Classes { labels: test.1.clone(), likeliest: likeliest(&scores, 5).unwrap() },
        };
        for metric in predictions.metrics() {
            let theirs = case[&metric.name].as_f64().unwrap();
            assert!((metric.value - theirs).abs() < 1e-12, "{}: {} {theirs}", metric.name, metric.value);
        }
        let scores = Vec::<f64>::try_from(scores.to_kind(Kind::Double).view(-1)).unwrap();
        let positive: Vec<bool> =
            test.1.iter().flat_map(|label| (0..CLASSES as i64).map(move |class| class == *label)).collect();
        let ours = mean_average_precision(&rankings(&scores, &positive, CLASSES), None);
        let theirs = case["mean_average_precision"].as_f64().unwrap();
        assert!((ours - theirs).abs() < 1e-12, "{ours} {theirs}");
    }
}
