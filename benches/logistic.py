"""Compares logistic regression in this crate with scikit-learn's lbfgs, in pairs.

    pip install scikit-learn==1.9.1 safetensors      # in a separate environment
    cargo build --release --example logistic
    python benches/logistic.py                       # 20,000 x 512 features, 10 and 100 classes, strengths 1 and 1000
    python benches/logistic.py --path --classes 10   # 45 strengths, warm-started on both sides; takes long
    python benches/logistic.py --path --until 0.25   # the same, once, until the ratio is certain to be below that

Both sides minimise the same objective in f64 to the same tolerance (largest entry of the mean's gradient at most 1e-9)
with the same number of threads, in alternation; the result is the median of the ratios of pairs. Reading the file is
not timed; converting to f64 is timed for this crate. Two sets of features: `plain` are Gaussian around class means;
`network` are rectified, correlated with a decaying spectrum and of non-zero mean, like pooled features of a network.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time
import warnings

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

PROGRAM = pathlib.Path(__file__).parent.parent / "target/release/examples/logistic"


def draw(kind, n, d, classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    noise = rng.normal(size=(n, d))
    if kind == "plain":
        features = noise + rng.normal(size=(classes, d))[labels] * 0.15
    else:
        mix = rng.normal(size=(d, d)) * (np.arange(1, d + 1) ** -0.7)[:, None]
        features = np.maximum((noise + rng.normal(size=(classes, d))[labels] * 0.8) @ mix * 0.3 + 0.1, 0)
    return features.astype(np.float32), labels.astype(np.int64)


def theirs(features, labels, strengths, enough=float("inf")):
    model = LogisticRegression(tol=1e-9, max_iter=100_000, warm_start=True)
    x = features.astype(float)
    fits, seconds = [], 0.0
    for strength in strengths:
        model.C = 1 / strength
        started = time.perf_counter()
        model.fit(x, labels)
        seconds += time.perf_counter() - started
        scores = model.decision_function(x)
        if scores.ndim == 1:
            scores = np.stack([-scores / 2, scores / 2], 1)
        top = scores.max(1, keepdims=True)
        entropy = (np.log(np.exp(scores - top).sum(1)) + top[:, 0] - scores[np.arange(len(x)), labels]).sum()
        fits.append({"objective": entropy + strength / 2 * (model.coef_**2).sum(), "predicted": scores.argmax(1), "steps": int(model.n_iter_[0])})
        if seconds >= enough:
            break
    return seconds, fits


def ours(file, threads, strengths):
    arguments = [PROGRAM, file, "1e-9", str(threads), *map(repr, strengths)]
    report = json.loads(subprocess.run(arguments, check=True, capture_output=True).stdout)
    return report["seconds"], report["fits"]


def compare(kind, classes, strengths, args, folder):
    features, labels = draw(kind, args.images, args.dimensions, classes)
    file = pathlib.Path(folder) / f"{kind}-{classes}.safetensors"
    save_file({"features": features, "labels": labels}, file)
    pairs = []
    if args.until:
        pairs.append((ours(file, args.threads, strengths), None))
        pairs[0] = (pairs[0][0], theirs(features, labels, strengths, pairs[0][0][0] / args.until))
    for pair in range(0 if args.until else args.pairs):
        sides = [lambda: ours(file, args.threads, strengths), lambda: theirs(features, labels, strengths)]
        order = [0, 1] if pair % 2 == 0 else [1, 0]
        results = {side: sides[side]() for side in order}
        pairs.append((results[0], results[1]))
    (_, our_fits), (_, their_fits) = pairs[0]
    print(json.dumps({
        "features": kind,
        "classes": classes,
        "strengths": strengths if len(strengths) < 4 else f"{len(strengths)} from {strengths[0]:g} to {strengths[-1]:g}",
        "strengths_of_theirs": len(their_fits),
        "ratio": round(statistics.median(a[0] / b[0] for a, b in pairs), 3),
        "our_seconds": round(statistics.median(a[0] for a, _ in pairs), 2),
        "their_seconds": round(statistics.median(b[0] for _, b in pairs), 2),
        "our_steps": sum(f["steps"] for f in our_fits),
        "their_steps": sum(f["steps"] for f in their_fits),
        "objective_apart": max(abs(a["objective"] / b["objective"] - 1) for a, b in zip(our_fits, their_fits)),
        "objective_above": max(a["objective"] / b["objective"] - 1 for a, b in zip(our_fits, their_fits)),
        "labels_apart": max(int((np.array(a["predicted"]) != b["predicted"]).sum()) for a, b in zip(our_fits, their_fits)),
    }), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--features", nargs="*", default=["plain", "network"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--path", action="store_true", help="45 strengths from 1e5 to 1e-6")
    parser.add_argument("--until", type=float, help="ours once, then theirs until ours over theirs is at most this")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with threadpool_limits(args.threads), tempfile.TemporaryDirectory() as folder:
        for kind in args.features:
            for classes in args.classes:
                if args.path:
                    compare(kind, classes, [float(s) for s in np.logspace(5, -6, 45)], args, folder)
                else:
                    for strength in [1.0, 1000.0]:
                        compare(kind, classes, [strength], args, folder)
