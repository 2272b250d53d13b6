"""Reverse-mode differentiation, as little as the methods need."""

import numpy as np


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


def columns_unit(bank):
    return bank / np.maximum(np.linalg.norm(bank, axis=0, keepdims=True), 1e-12)
