//! Evaluation: features, kNN, linear and logistic classifiers.
