"""What evaluation must agree with, computed by scikit-learn and plain numpy.

    python -m venv /tmp/reference && /tmp/reference/bin/pip install scikit-learn==1.9.1 safetensors
    /tmp/reference/bin/python tests/reference/evaluation.py

writes features.safetensors and evaluation.json beside this file; `tests/integration/reference.rs` reads them.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

HERE = pathlib.Path(__file__).parent
CLASSES, D = 7, 10
rng = np.random.default_rng(20240607)
means = rng.normal(size=(CLASSES, D))
mix = rng.normal(size=(D, D))


def draw(n):
    # Classes of unequal size, features rectified and correlated as a network's are.
    labels = rng.choice(CLASSES, size=n, p=np.arange(1, CLASSES + 1) / 28)
    features = np.maximum((rng.normal(size=(n, D)) + 0.9 * means[labels]) @ mix + 0.5, 0)
    return features.astype(np.float32), labels.astype(np.int64)


train, train_labels = draw(240)
test, test_labels = draw(150)
save_file({"train": train, "train_labels": train_labels, "test": test, "test_labels": test_labels}, HERE / "features.safetensors")


def knn(k, temperature):
    # scikit-learn's cosine distance is 1 - cosine.
    weights = lambda distance: np.exp((1 - distance) / temperature)
    model = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute").fit(train, train_labels)
    return model.predict(test)


def logistic(strength):
    # tol is on the mean's gradient; far below it scikit-learn stops where f64 has no more digits.
    model = LogisticRegression(C=1 / strength, tol=1e-12, max_iter=100000).fit(train.astype(float), train_labels)
    scores = model.decision_function(train.astype(float))
    entropy = (np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1) - scores[np.arange(len(train)), train_labels]).sum()
    on_test = model.decision_function(test.astype(float))
    return {
        "strength": strength,
        "objective": entropy + strength / 2 * (model.coef_**2).sum(),
        "scores": on_test.tolist(),
        "top1": top_k_accuracy_score(test_labels, on_test, k=1, labels=range(CLASSES)),
        "top5": top_k_accuracy_score(test_labels, on_test, k=5, labels=range(CLASSES)),
        "mean_per_class": balanced_accuracy_score(test_labels, on_test.argmax(1)),
        "mean_average_precision": np.mean([eleven_point(on_test[:, c], test_labels == c) for c in range(CLASSES)]),
    }


def eleven_point(scores, positive):
    """As voc_ap(use_07_metric=True) of the well-known Python port of the VOC devkit has it, but that recalls are compared
    with tenths exactly: in floating point 3/10 is less than 3 * 0.1."""
    positive = positive[np.argsort(-scores, kind="stable")]
    found = np.cumsum(positive)
    precision = found / np.arange(1, len(positive) + 1)
    average = 0.0
    for tenth in range(11):
        beyond = precision[10 * found >= tenth * positive.sum()]
        average += (beyond.max() if len(beyond) else 0) / 11
    return average


def one_vs_rest(kind, c, strength):
    """One class against the rest: a logistic regression, or LIBLINEAR's machine on features of unit length with the class
    counted twice."""
    x, y = train.astype(float), (train_labels == c).astype(int)
    if kind == "Logistic":
        model = LogisticRegression(C=1 / strength, tol=1e-12, max_iter=100000).fit(x, y)
    else:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        model = LinearSVC(C=1 / strength, class_weight={1: 2}, dual=False, tol=1e-12, max_iter=100000).fit(x, y)
    return {"kind": kind, "class": c, "strength": strength, "weights": model.coef_[0].tolist(), "bias": model.intercept_[0]}


result = {
    "one_vs_rest": [one_vs_rest(k, c, s) for k in ["Logistic", "Svm"] for c in [0, 5] for s in [10.0, 0.1]],
    "knn": [{"k": k, "temperature": t, "answers": knn(k, t).tolist()} for k, t in [(20, 0.2), (5, 0.07), (1, 0.2), (200, 0.2)]],
    "logistic": [logistic(strength) for strength in [0.01, 1.0, 100.0]],
}
(HERE / "evaluation.json").write_text(json.dumps(result) + "\n")
