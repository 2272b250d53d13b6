//! Evaluation: features, kNN, linear and logistic classifiers.

pub mod lbfgs;
pub mod logistic;
