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

from derivatives import columns_unit
from methods.adco import AdCo
from methods.byol import BYOL
from methods.caco import CaCo
from methods.moco_v2 import MoCoV2
from methods.simclr import SimCLR
from methods.swav import SwAV
from network import parameter_shapes
from tensors import read, write

METHODS = {method.__name__: method for method in (MoCoV2, AdCo, SimCLR, BYOL, SwAV)}


def begin(case, init):
    """The method at its start. A case of another mode is one of CaCo."""
    if case["mode"] != "method":
        return CaCo(case, init)
    ((name, parameters),) = case["method"].items()
    return METHODS[name](case, init, **parameters)


def views_of(steps, number):
    views = []
    while f"step{number}.view{len(views)}" in steps:
        views.append(steps[f"step{number}.view{len(views)}"])
    return views


def run(case, init, steps):
    """Everything that is expected of a run."""
    method, output = begin(case, init), {}
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

# Cases of the other methods: the sizes, and what else `method` and `optimizer` say.
SIZES = ("steps", "batch", "size", "small", "n_small", "block", "layers", "width", "stem", "hidden", "dim")
BOTTLENECK = dict(block="bottleneck")
LARS = {"Lars": dict(momentum=0.9, weight_decay=1.5e-6, trust=0.001)}
FAST_LARS = {"Lars": dict(momentum=0.8, weight_decay=0.05, trust=0.02)}
SGD = {"Sgd": dict(momentum=0.9, weight_decay=1e-4)}
FAST_SGD = {"Sgd": dict(momentum=0.8, weight_decay=0.05)}


def of_method(method, parameters, optimizer, lr, **own):
    sizes = {name: COMMON[name] for name in SIZES}
    return sizes | dict(mode="method", method={method: parameters}, optimizer=optimizer, lr=lr) | own


MOCO = dict(temperature=0.2, key_momentum=0.99, symmetric=False)
BANK = dict(bank_temperature=0.1, bank_rate=3.0, bank_momentum=0.9)
ADCO = dict(temperature=0.12, **BANK, key_momentum=0.99, symmetric=False)
WARMER = dict(temperature=0.2, bank_temperature=0.3, bank_rate=1.0, bank_momentum=0.5, key_momentum=0.9)
SWAV = dict(temperature=0.1, epsilon=0.05, iterations=3)
METHOD_CASES = {
    "moco-v2-basic": of_method("MoCoV2", MOCO, SGD, 0.1, bank=14),
    # In the last step the queue wraps amid a batch of keys.
    "moco-v2-wraps": of_method(
        "MoCoV2", MOCO | dict(temperature=0.1, key_momentum=0.9), FAST_SGD, 0.05, bank=14, steps=4, **BOTTLENECK
    ),
    "moco-v2-symmetric": of_method("MoCoV2", MOCO | dict(symmetric=True), SGD, 0.1, bank=20, layers=[2, 1]),
    "adco-basic": of_method("AdCo", ADCO, SGD, 0.1, bank=14, layers=[2, 1]),
    "adco-bottleneck": of_method("AdCo", ADCO | WARMER, FAST_SGD, 0.05, bank=11, steps=4, **BOTTLENECK),
    "adco-symmetric": of_method("AdCo", ADCO | dict(symmetric=True), SGD, 0.1, bank=14, batch=8),
    "simclr-basic": of_method("SimCLR", dict(temperature=0.5), LARS, 0.5, layers=[2, 1]),
    "simclr-bottleneck": of_method("SimCLR", dict(temperature=0.5), LARS, 1.0, **LARGE_STEM),
    "simclr-low-temperature": of_method("SimCLR", dict(temperature=0.1), FAST_LARS, 0.2, batch=8),
    "byol-basic": of_method("BYOL", dict(key_momentum=0.99), LARS, 0.5, predictor=8, layers=[2, 1]),
    "byol-bottleneck": of_method("BYOL", dict(key_momentum=0.996), LARS, 0.5, predictor=10, steps=4, **BOTTLENECK),
    "byol-fast-target": of_method("BYOL", dict(key_momentum=0.7), FAST_LARS, 0.2, predictor=12, batch=8),
    "swav-basic": of_method("SwAV", SWAV, LARS, 0.5, prototypes=9),
    "swav-small-views": of_method("SwAV", SWAV, LARS, 0.5, prototypes=9, n_small=3, **LARGE_STEM | dict(small=8)),
    "swav-freeze": of_method(
        "SwAV", dict(temperature=0.2, epsilon=0.1, iterations=5), FAST_LARS, 0.2, prototypes=5, n_small=1, steps=4,
        batch=8, freeze=[True, False, True, False],
    ),
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


def draw_init(case, rng):
    init, dim = {}, case["dim"]
    if "bank" in case:
        init["bank.W"] = rng.standard_normal((dim, case["bank"]))
    if "MoCoV2" in case.get("method", ()):
        init["bank.W"] = columns_unit(init["bank.W"])
    shapes = {f"encoder_q.{name}": shape for name, shape in parameter_shapes(case).items()}
    if hidden := case.get("predictor"):
        shapes |= {"predictor.0.weight": (hidden, dim), "predictor.3.weight": (dim, hidden)}
        shapes |= {f"predictor.1.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")}
    if prototypes := case.get("prototypes"):
        shapes["prototypes.weight"] = (prototypes, dim)
    return init | start(shapes, rng)


def draw(folder, names):
    cases = {name: COMMON | own for name, own in CASES.items()} | METHOD_CASES
    if unknown := set(names) - set(cases):
        sys.exit(f"error: no such case: {', '.join(sorted(unknown))}\nhelp: the cases are {', '.join(cases)}")
    for seed, (name, case) in enumerate(cases.items()):
        if names and name not in names:
            continue
        case = case | {"seed": seed}
        rng = np.random.default_rng(seed)
        init = draw_init(case, rng)
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
