"""MoCo v2: He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297.

    f_k ← m f_k + (1 − m) f_q                                     before the keys
    q = unit(f_q(x0)), k = unit(f_k(x1)); Q [C, K]: the last keys
    loss = mean over the batch of −log softmax([q · k, q · Q] / τ) at the key
"""

import numpy as np

from derivatives import Value, add, beside_own, cross_entropy, scale
from network import Encoder
from optimizers import gradients, norm, optimizer
from tensors import within


class MoCoV2:
    def __init__(self, case, init, temperature, key_momentum, symmetric=False):
        self.temperature, self.key_momentum, self.symmetric = temperature, key_momentum, symmetric
        self.query, self.key = (Encoder(case, within(init, "encoder_q.")) for _ in range(2))
        self.optimizer = optimizer(case, self.query.parameters)
        self.queue = init["bank.W"].copy()

    def step(self, number, views):
        # (view of the query, view of the key)
        queried, keyed = ((0, 1), (1, 0)) if self.symmetric else ((0,), (1,))
        queries, weights = self.query.embed([views[v] for v in queried])
        self.key.average(self.key_momentum, self.query)
        # Keys pass in the order of their views, as queries do.
        passed = sorted(keyed)
        keys = {v: k.array for v, k in zip(passed, self.key.embed([views[v] for v in passed])[0])}
        loss = Value(np.float64(0))
        for q, v in zip(queries, keyed):
            logits = beside_own(q, keys[v], self.queue)
            loss = add(loss, cross_entropy(scale(logits, 1 / self.temperature), np.zeros(len(views[0]), int)))
        loss.backward()
        self.optimizer.step(gradients(weights))
        new = np.vstack([keys[v] for v in passed])
        columns = (number * len(new) + np.arange(len(new))) % self.queue.shape[1]
        self.queue[:, columns] = new.T
        return {"loss": loss.array, "gradient_norm": norm(gradients(weights)), "W": self.queue.copy()}

    def end(self):
        return {"encoder_q": self.query.tensors(), "encoder_k": self.key.tensors(), "momentum": self.optimizer.momentum}
