"""The method in float64, written from the paper's formulas with numpy alone: no torch, no code shared with the crate.

    pip install numpy
    python tests/reference/reference.py check FOLDER…    # replays recorded cases, fails beyond 1e-9
    python tests/reference/reference.py draw             # draws the cases under tests/reference/cases afresh

A case is a folder: case.json (mode, objective, sizes, rates), init.safetensors (the encoder and the bank it starts with),
steps.safetensors (the views of every step), expect.safetensors (what every step and the end must be). See README.md.
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np

TYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64}


def read(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    tensor = lambda t: np.frombuffer(body[slice(*t["data_offsets"])], TYPES[t["dtype"]]).reshape(t["shape"]).copy()
    return {name: tensor(t) for name, t in header.items() if name != "__metadata__"}


def write(path, tensors):
    header, body = {}, b""
    for name, tensor in sorted(tensors.items()):
        tensor = np.ascontiguousarray(tensor)
        kind = next(k for k, t in TYPES.items() if t == tensor.dtype)
        data = tensor.tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header + body)


# ---- Reverse-mode differentiation, as little as the method needs.


class Value:
    """An array, the values it was made of, and how a gradient of it becomes gradients of those."""

    def __init__(self, array, parents=(), back=None):
        self.array, self.parents, self.back, self.gradient = array, parents, back, None

    def backward(self):
        order, seen = [], set()

        def visit(value):
            if id(value) not in seen:
                seen.add(id(value))
                for parent in value.parents:
                    visit(parent)
                order.append(value)

        visit(self)
        self.gradient = np.ones_like(self.array)
        for value in reversed(order):
            if value.back is None or value.gradient is None:
                continue
            for parent, gradient in zip(value.parents, value.back(value.gradient)):
                parent.gradient = gradient if parent.gradient is None else parent.gradient + gradient


def convolve(x, w, stride, padding):
    out, _, kh, kw = w.array.shape
    padded = np.pad(x.array, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))[:, :, ::stride, ::stride]
    rows, columns = windows.shape[2:4]

    def back(g):
        dw = np.einsum("nohw,nihwab->oiab", g, windows)
        dpadded = np.zeros_like(padded)
        for a in range(kh):
            for b in range(kw):
                part = np.einsum("nohw,oi->nihw", g, w.array[:, :, a, b])
                dpadded[:, :, a : a + stride * rows : stride, b : b + stride * columns : stride] += part
        end = lambda n: n - padding
        return dpadded[:, :, padding : end(padded.shape[2]), padding : end(padded.shape[3])], dw

    return Value(np.einsum("nihwab,oiab->nohw", windows, w.array), (x, w), back)


def batch_norm(x, weights, name, buffers):
    axes = (0,) + tuple(range(2, x.array.ndim))
    shape = (1, -1) + (1,) * (x.array.ndim - 2)
    count = x.array.size // x.array.shape[1]
    mean, variance = x.array.mean(axes), x.array.var(axes)
    buffers[name + ".running_mean"] += 0.1 * (mean - buffers[name + ".running_mean"])
    buffers[name + ".running_var"] += 0.1 * (variance * count / (count - 1) - buffers[name + ".running_var"])
    inverse = 1 / np.sqrt(variance + 1e-5)
    centred = (x.array - mean.reshape(shape)) * inverse.reshape(shape)
    w, b = weights[name + ".weight"], weights[name + ".bias"]

    def back(g):
        dw, db = (g * centred).sum(axes), g.sum(axes)
        inner = g - (db / count).reshape(shape) - centred * (dw / count).reshape(shape)
        return inner * (w.array * inverse).reshape(shape), dw, db

    return Value(centred * w.array.reshape(shape) + b.array.reshape(shape), (x, w, b), back)


def relu(x):
    return Value(np.maximum(x.array, 0), (x,), lambda g: (g * (x.array > 0),))


def add(x, y):
    return Value(x.array + y.array, (x, y), lambda g: (g, g))


def scale(x, by):
    return Value(x.array * by, (x,), lambda g: (g * by,))


def max_pool(x):
    """3 × 3, stride 2, padding 1; of equal values the first takes the gradient."""
    padded = np.pad(x.array, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    flat = windows.reshape(*windows.shape[:4], 9)
    best = flat.argmax(-1)

    def back(g):
        dpadded = np.zeros_like(padded)
        n, c, h, w = np.indices(best.shape)
        np.add.at(dpadded, (n, c, 2 * h + best // 3, 2 * w + best % 3), g)
        return (dpadded[:, :, 1:-1, 1:-1],)

    return Value(np.take_along_axis(flat, best[..., None], -1)[..., 0], (x,), back)


def mean_pool(x):
    area = x.array.shape[2] * x.array.shape[3]
    spread = lambda g: (np.broadcast_to(g[:, :, None, None] / area, x.array.shape),)
    return Value(x.array.mean((2, 3)), (x,), spread)


def linear(x, w):
    return Value(x.array @ w.array.T, (x, w), lambda g: (g @ w.array, g.T @ x.array))


def unit(x):
    norm = np.maximum(np.linalg.norm(x.array, axis=1, keepdims=True), 1e-12)
    y = x.array / norm
    return Value(y, (x,), lambda g: ((g - y * (g * y).sum(1, keepdims=True)) / norm,))


def times(q, matrix):
    """q · matrix, where the matrix is a constant."""
    return Value(q.array @ matrix, (q,), lambda g: (g @ matrix.T,))


def beside_own(q, k, matrix):
    """[q · k row by row, q · matrix]: logits with a key as the first column."""
    own = (q.array * k).sum(1, keepdims=True)
    return Value(np.hstack([own, q.array @ matrix]), (q,), lambda g: (g[:, :1] * k + g[:, 1:] @ matrix.T,))


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(logits, labels):
    n = len(labels)
    shifted = logits.array - logits.array.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    def back(g):
        d = np.exp(log_p)
        d[np.arange(n), labels] -= 1
        return (g * d / n,)

    return Value(-log_p[np.arange(n), labels].mean(), (logits,), back)


# ---- The network, with torchvision's names.


def parameter_shapes(case):
    shapes = {}

    def conv_norm(conv, norm, inside, out, kernel):
        shapes[conv + ".weight"] = (out, inside, kernel, kernel)
        shapes.update({f"{norm}.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")})

    conv_norm("conv1", "bn1", 3, case["width"], 7 if case["stem"] == "imagenet" else 3)
    for name, path, shortcut, _ in blocks(case):
        for i, (inside, out, kernel, _) in enumerate(path, 1):
            conv_norm(f"{name}.conv{i}", f"{name}.bn{i}", inside, out, kernel)
        if shortcut:
            conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", *shortcut, 1)
    features, hidden = path[-1][1], case["hidden"]
    for place, inside, out in ((0, features, hidden), (3, hidden, hidden), (6, hidden, case["dim"])):
        shapes[f"fc.{place}.weight"] = (out, inside)
    for place in (1, 4):
        shapes.update({f"fc.{place}.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")})
    return shapes


def blocks(case):
    """Name, path of (in, out, kernel, stride), shortcut (in, out) or None, stride."""
    channels = case["width"]
    for layer, depth in enumerate(case["layers"]):
        planes = case["width"] << layer
        for number in range(depth):
            stride = 2 if layer and not number else 1
            if case["block"] == "basic":
                out = planes
                path = [(channels, planes, 3, stride), (planes, planes, 3, 1)]
            else:
                out = 4 * planes
                path = [(channels, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
            shortcut = (channels, out) if stride != 1 or channels != out else None
            yield f"layer{layer + 1}.{number}", path, shortcut, stride
            channels = out


def forward(case, weights, buffers, images):
    conv = lambda x, name, kernel, stride: convolve(x, weights[name + ".weight"], stride, kernel // 2)
    norm = lambda x, name: batch_norm(x, weights, name, buffers)
    kernel, stride = (7, 2) if case["stem"] == "imagenet" else (3, 1)
    x = relu(norm(conv(Value(images), "conv1", kernel, stride), "bn1"))
    if case["stem"] == "imagenet":
        x = max_pool(x)
    for name, path, shortcut, stride in blocks(case):
        around = norm(conv(x, name + ".downsample.0", 1, stride), name + ".downsample.1") if shortcut else x
        y = x
        for i, (_, _, kernel, s) in enumerate(path, 1):
            y = norm(conv(y, f"{name}.conv{i}", kernel, s), f"{name}.bn{i}")
            if i < len(path):
                y = relu(y)
        x = relu(add(y, around))
    x = mean_pool(x)
    for place in (0, 3):
        x = relu(norm(linear(x, weights[f"fc.{place}.weight"]), f"fc.{place + 1}"))
    return unit(linear(x, weights["fc.6.weight"]))


class Encoder:
    def __init__(self, case, tensors):
        self.case = case
        is_buffer = lambda name: "running_" in name
        self.parameters = {n: t.copy() for n, t in tensors.items() if not is_buffer(n)}
        self.buffers = {n: t.copy() for n, t in tensors.items() if is_buffer(n)}

    def embed(self, views):
        """Embeddings of some views, one after the other, and the parameters as differentiable values."""
        weights = {n: Value(p) for n, p in self.parameters.items()}
        return [forward(self.case, weights, self.buffers, view) for view in views], weights

    def tensors(self):
        return {**self.parameters, **self.buffers}


# ---- The method.


def columns_unit(bank):
    return bank / np.maximum(np.linalg.norm(bank, axis=0, keepdims=True), 1e-12)


class Method:
    def __init__(self, case, init):
        self.case = case
        encoder = {n.removeprefix("encoder_q."): t for n, t in init.items() if n.startswith("encoder_q.")}
        self.query, self.key = Encoder(case, encoder), Encoder(case, encoder)
        self.bank, self.velocity = init["bank.W"].copy(), np.zeros_like(init["bank.W"])
        self.momentum = {n: np.zeros_like(p) for n, p in self.query.parameters.items()}
        self.enqueued = 0

    def average(self, m):
        for name, p in self.key.parameters.items():
            p[...] = m * p + (1 - m) * self.query.parameters[name]

    def lars(self, weights):
        c = self.case
        for name, p in self.query.parameters.items():
            g = weights[name].gradient
            if p.ndim > 1:
                g = g + c["weight_decay"] * p
                norms = np.linalg.norm(p), np.linalg.norm(g)
                if norms[0] > 0 and norms[1] > 0:
                    g = g * c.get("trust", 0.001) * norms[0] / norms[1]
            self.momentum[name] = c["momentum"] * self.momentum[name] + g
            p -= c["lr"] * self.momentum[name]

    def pairs(self, views):
        """(query, key, weight) of every pair."""
        if self.case["mode"] == "sym":
            return [(0, 1, 1.0), (1, 0, 1.0)]
        large = [(0, 1), (1, 0)]
        small = [(i, j) for i in range(2, views) for j in (0, 1)]
        return [(i, j, 1 / len(large)) for i, j in large] + [(i, j, 1 / len(small)) for i, j in small]

    def step(self, views):
        c = self.case
        objective = c.get("objective", "CaCo")
        queries, weights = self.query.embed(views)
        self.average(c["key_momentum"])
        keys = [k.array for k in self.key.embed(views[:2])[0]]
        d = columns_unit(self.bank)
        n, output = len(views[0]), {}
        by_key = objective in ("KeyPositive", "Queue")
        positives = [(k @ d).argmax(1) for k in keys]
        if not by_key:
            output.update({f"positives{v}": j.astype(np.int64) for v, j in enumerate(positives)})
        loss, gradient = Value(np.float64(0)), np.zeros_like(self.bank)
        for i, j, weight in self.pairs(len(views)):
            q = queries[i]
            if by_key:
                logits = beside_own(q, keys[j], d)
                loss = add(loss, scale(cross_entropy(scale(logits, 1 / c["tau"]), np.zeros(n, int)), weight))
                w = softmax(logits.array / c["bank_tau"])[:, 1:]
            else:
                logits, here = times(q, d), (np.arange(n), positives[j])
                loss = add(loss, scale(cross_entropy(scale(logits, 1 / c["tau"]), positives[j]), weight))
                w = softmax(logits.array / c["bank_tau"])
                positive = 1 - w[here]
                if objective == "AdversarialOnly":
                    positive = 0
                if objective == "CooperativeOnly":
                    w = np.zeros_like(w)
                w[here] = positive
            s = q.array @ d
            g = q.array.T @ w / n - d * (w * s).mean(0)
            gradient += weight * g / np.linalg.norm(self.bank, axis=0) / c["bank_tau"]
        loss.backward()
        self.lars(weights)
        if objective == "Queue":
            self.enqueue(np.vstack(keys))
        elif objective != "FixedBank":
            self.velocity = c["bank_momentum"] * self.velocity - gradient
            self.bank = self.bank - c["bank_lr"] * self.velocity
        return {**output, "loss": loss.array}

    def enqueue(self, keys):
        for key in keys:
            self.bank[:, self.enqueued % self.bank.shape[1]] = key
            self.enqueued += 1

    def warm(self, views):
        """One step of the bank initialisation."""
        (q1, _), weights = self.query.embed(views)
        self.average(self.case["key_momentum"])
        (_, k2), _ = self.key.embed(views)
        logits = beside_own(q1, k2.array, columns_unit(self.bank))
        loss = cross_entropy(scale(logits, 1 / 0.2), np.zeros(len(views[0]), int))
        loss.backward()
        self.lars(weights)
        free = self.bank.shape[1] - self.enqueued
        self.enqueue(k2.array[:free])
        return {"loss": loss.array}

    def run(self, steps):
        """Everything that is expected of a run."""
        warm, output = self.case["mode"] == "warm", {}
        for t in range(self.case["steps"]):
            if warm and self.enqueued >= self.bank.shape[1]:
                break
            views = []
            while f"step{t}.view{len(views)}" in steps:
                views.append(steps[f"step{t}.view{len(views)}"])
            figures = self.warm(views) if warm else self.step(views)
            output.update({f"step{t}.{name}": np.atleast_1d(value) for name, value in figures.items()})
            output[f"step{t}.W"] = self.bank.copy()
            if not warm:
                output[f"step{t}.v"] = self.velocity.copy()
        if warm:
            self.key.parameters = {n: p.copy() for n, p in self.query.parameters.items()}
        for name, tensors in (
            ("encoder_q", self.query.tensors()),
            ("encoder_k", self.key.tensors()),
            ("momentum", self.momentum),
        ):
            output.update({f"final.{name}.{n}": t for n, t in tensors.items()})
        return output


# ---- Cases.


def check(folder):
    folder = Path(folder)
    case = json.loads((folder / "case.json").read_text())
    ours = Method(case, read(folder / "init.safetensors")).run(read(folder / "steps.safetensors"))
    worst, where = 0.0, ""
    for name, expected in read(folder / "expect.safetensors").items():
        if expected.dtype == np.int64:
            distance = 0.0 if (ours[name] == expected).all() else math.inf
        else:
            distance = np.abs(ours[name].reshape(expected.shape) - expected).max() / max(1, np.abs(expected).max())
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


def draw(folder):
    for seed, (name, own) in enumerate(CASES.items()):
        case = COMMON | own | {"seed": seed}
        rng = np.random.default_rng(seed)
        init = {"bank.W": rng.standard_normal((case["dim"], case["bank"]))}
        for parameter, shape in parameter_shapes(case).items():
            if len(shape) == 4:
                value = rng.standard_normal(shape) * math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            elif len(shape) == 2:
                value = rng.uniform(-1, 1, shape) / math.sqrt(shape[1])
            elif parameter.endswith("bias") or parameter.endswith("running_mean"):
                value = 0.1 * rng.standard_normal(shape)
            else:
                value = rng.uniform(0.5, 1.5, shape)
            init["encoder_q." + parameter] = value
        sizes = [case["size"]] * 2 + [case["small"]] * case["n_small"]
        view = lambda side: rng.standard_normal((case["batch"], 3, side, side))
        steps = {f"step{t}.view{v}": view(side) for t in range(case["steps"]) for v, side in enumerate(sizes)}
        to = folder / name
        to.mkdir(parents=True, exist_ok=True)
        (to / "case.json").write_text(json.dumps(case, indent=1) + "\n")
        write(to / "init.safetensors", init)
        write(to / "steps.safetensors", steps)
        write(to / "expect.safetensors", Method(case, init).run(steps))
        print(f"{name}: {sum(p.stat().st_size for p in to.iterdir()) / 1e3:.0f} kB")


def main():
    if sys.argv[1:2] == ["draw"]:
        draw(Path(__file__).parent / "cases")
    elif sys.argv[1:2] == ["check"] and len(sys.argv) > 2:
        sys.exit(not all([check(folder) for folder in sys.argv[2:]]))
    else:
        sys.exit(__doc__)


main()
