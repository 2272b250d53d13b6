"""SimCLR: Chen et al. 2020, arXiv 2002.05709.

    z = unit(f_q(x)) for both views: 2N embeddings
    loss = mean over the 2N of −log (exp(z_i · z_j / τ) / Σ_{k ≠ i} exp(z_i · z_k / τ)), j being i's other view
"""

import numpy as np

from derivatives import Value, cross_entropy, scale
from network import Encoder
from optimizers import gradients, norm, optimizer
from tensors import within


def stack(x, y):
    n = len(x.array)
    return Value(np.vstack([x.array, y.array]), (x, y), lambda g: (g[:n], g[n:]))


def similarity(z):
    """z · zᵀ, and −∞ where an embedding meets itself."""
    others = ~np.eye(len(z.array), dtype=bool)

    def back(g):
        g = np.where(others, g, 0)
        return (g @ z.array + g.T @ z.array,)

    return Value(np.where(others, z.array @ z.array.T, -np.inf), (z,), back)


class SimCLR:
    def __init__(self, case, init, temperature):
        self.temperature = temperature
        self.encoder = Encoder(case, within(init, "encoder_q."))
        self.optimizer = optimizer(case, self.encoder.parameters)

    def step(self, number, views):
        if len(views) != 2:
            raise ValueError(f"SimCLR takes two views, not {len(views)}")
        (z0, z1), weights = self.encoder.embed(views)
        logits, n = scale(similarity(stack(z0, z1)), 1 / self.temperature), len(views[0])
        loss = cross_entropy(logits, (np.arange(2 * n) + n) % (2 * n))
        loss.backward()
        self.optimizer.step(gradients(weights))
        return {"loss": loss.array, "gradient_norm": norm(gradients(weights))}

    def end(self):
        return {"encoder_q": self.encoder.tensors(), "momentum": self.optimizer.momentum}
