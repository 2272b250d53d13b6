//! Evaluation: features, kNN, linear and logistic classifiers.

pub mod features;
pub mod knn;
pub mod lbfgs;
pub mod linear;
pub mod logistic;
pub mod npy;
pub mod one_vs_rest;
pub mod predictions;
#[cfg(test)]
mod sketch;
pub mod split;
pub mod stream;
pub mod svm;
