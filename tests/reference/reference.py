"""The methods in float64, from their papers' formulas with numpy alone: no torch, no code shared with the crate.

    pip install numpy
    python tests/reference/reference.py check FOLDER…    # replays recorded cases, fails beyond 1e-9
    python tests/reference/reference.py draw [NAME…]     # draws these cases under tests/reference/cases, or all, afresh

A case is a folder: case.json (method, sizes, rates), init.safetensors (the tensors it starts with), steps.safetensors
(the views of every step), expect.safetensors (what every step and the end must be). See README.md.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

from methods.caco import CaCo
from network import parameter_shapes
from tensors import read, write


def views_of(steps, number):
    views = []
    while f"step{number}.view{len(views)}" in steps:
        views.append(steps[f"step{number}.view{len(views)}"])
    return views


def run(case, init, steps):
    """Everything that is expected of a run."""
    method, output = CaCo(case, init), {}
    for number in range(case["steps"]):
        figures = method.step(number, views_of(steps, number))
        if figures is None:
            break
        output.update({f"step{number}.{name}": np.atleast_1d(value) for name, value in figures.items()})
    for group, tensors in method.end().items():
        output.update({f"final.{group}.{name}": tensor for name, tensor in tensors.items()})
    return output


def check(folder):
    folder = Path(folder)
    case = json.loads((folder / "case.json").read_text())
    ours = run(case, read(folder / "init.safetensors"), read(folder / "steps.safetensors"))
    worst, where = 0.0, ""
    for name, expected in read(folder / "expect.safetensors").items():
        if expected.dtype == np.int64:
            distance = 0.0 if (ours[name] == expected).all() else math.inf
        else:
            distance = np.abs(ours[name].reshape(expected.shape) - expected).max() / max(1, np.abs(expected).max())
        if math.isnan(distance):
            distance = math.inf
        if distance >= worst:
            worst, where = float(distance), name
    print(json.dumps({"case": folder.name, "worst": worst, "where": where}))
    return worst <= 1e-9


COMMON = dict(
    steps=3, batch=4, size=8, small=4, n_small=0, block="basic", layers=[1, 1], width=4, stem="cifar", hidden=8, dim=6,
    bank=14, lr=0.5, momentum=0.9, weight_decay=1.5e-6, tau=0.08, bank_tau=0.08, bank_lr=3.0, bank_momentum=0.9,
    key_momentum=0.99,
)
LARGE_STEM = dict(block="bottleneck", stem="imagenet", size=16, layers=[1, 1], width=4)
CASES = {
    "sym-basic": dict(mode="sym", layers=[2, 1]),
    "sym-bottleneck": dict(mode="sym", **LARGE_STEM),
    "sym-two-temperatures": dict(mode="sym", tau=0.1, bank_tau=0.3),
    "multicrop-basic": dict(mode="multicrop", n_small=3),
    "multicrop-bottleneck": dict(mode="multicrop", n_small=2, steps=2, **LARGE_STEM | dict(small=8)),
    "warm-basic": dict(mode="warm", steps=8),
    "warm-bottleneck": dict(mode="warm", steps=8, bank=10, **LARGE_STEM),
    "fixed-bank": dict(mode="sym", objective="FixedBank"),
    "adversarial-only": dict(mode="sym", objective="AdversarialOnly"),
    "cooperative-only": dict(mode="sym", objective="CooperativeOnly"),
    "key-positive": dict(mode="sym", objective="KeyPositive"),
    "queue": dict(mode="sym", objective="Queue"),
    "multicrop-adversarial-only": dict(mode="multicrop", n_small=2, steps=2, objective="AdversarialOnly"),
    "multicrop-cooperative-only": dict(mode="multicrop", n_small=2, steps=2, objective="CooperativeOnly"),
    "multicrop-key-positive": dict(mode="multicrop", n_small=2, steps=2, objective="KeyPositive", bank_tau=0.2),
    # Batches that can be cut into eight shards, and channels that fill vectors of f64.
    "sym-eight-shards": dict(mode="sym", batch=16, width=8, steps=2),
    "multicrop-eight-shards": dict(mode="multicrop", batch=16, width=8, n_small=2, steps=2),
}


def start(shapes, rng):
    """Random tensors to start with."""
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 4:
            value = rng.standard_normal(shape) * math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        elif len(shape) == 2:
            value = rng.uniform(-1, 1, shape) / math.sqrt(shape[1])
        elif name.endswith("bias") or name.endswith("running_mean"):
            value = 0.1 * rng.standard_normal(shape)
        else:
            value = rng.uniform(0.5, 1.5, shape)
        tensors[name] = value
    return tensors


def draw(folder, names):
    cases = {name: COMMON | own for name, own in CASES.items()}
    if unknown := set(names) - set(cases):
        sys.exit(f"error: no such case: {', '.join(sorted(unknown))}\nhelp: the cases are {', '.join(cases)}")
    for seed, (name, case) in enumerate(cases.items()):
        if names and name not in names:
            continue
        case = case | {"seed": seed}
        rng = np.random.default_rng(seed)
        init = {"bank.W": rng.standard_normal((case["dim"], case["bank"]))}
        init |= start({f"encoder_q.{name}": shape for name, shape in parameter_shapes(case).items()}, rng)
        sizes = [case["size"]] * 2 + [case["small"]] * case["n_small"]
        view = lambda side: rng.standard_normal((case["batch"], 3, side, side))
        steps = {f"step{t}.view{v}": view(side) for t in range(case["steps"]) for v, side in enumerate(sizes)}
        to = folder / name
        to.mkdir(parents=True, exist_ok=True)
        (to / "case.json").write_text(json.dumps(case, indent=1) + "\n")
        write(to / "init.safetensors", init)
        write(to / "steps.safetensors", steps)
        write(to / "expect.safetensors", run(case, init, steps))
        print(f"{name}: {sum(p.stat().st_size for p in to.iterdir()) / 1e3:.0f} kB")


def main():
    if sys.argv[1:2] == ["draw"]:
        draw(Path(__file__).parent / "cases", sys.argv[2:])
    elif sys.argv[1:2] == ["check"] and len(sys.argv) > 2:
        sys.exit(not all([check(folder) for folder in sys.argv[2:]]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
