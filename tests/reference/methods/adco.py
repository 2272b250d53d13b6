"""AdCo: Hu et al. 2021, arXiv 2011.08435. The negatives W [C, K] are trained to raise the loss that the encoder lowers.

    f_k ← m f_k + (1 − m) f_q                                     before the keys
    q = unit(f_q(x0)), k = unit(f_k(x1)), D = the columns of W at unit length
    loss = mean over the batch of −log softmax([q · k, q · D] / τ) at the key
    p = softmax([q · k, q · D] / τ_b) without its first column
    ∂(loss at τ_b)/∂W = (qᵀ p / N − D ∘ mean over the batch of p ∘ (q · D)) / |W| / τ_b = G
    V ← μ V − G, W ← W − η V                                      after the encoder's step, with the q and D before it
"""

import numpy as np

from derivatives import Value, add, beside_own, columns_unit, cross_entropy, scale, softmax
from network import Encoder
from optimizers import gradients, norm, optimizer
from tensors import within


class AdCo:
    def __init__(
        self, case, init, temperature, bank_temperature, bank_rate, bank_momentum, key_momentum, symmetric=False
    ):
        self.temperature, self.key_momentum, self.symmetric = temperature, key_momentum, symmetric
        self.bank_temperature, self.bank_rate, self.bank_momentum = bank_temperature, bank_rate, bank_momentum
        self.query, self.key = (Encoder(case, within(init, "encoder_q.")) for _ in range(2))
        self.optimizer = optimizer(case, self.query.parameters)
        self.bank, self.velocity = init["bank.W"].copy(), np.zeros_like(init["bank.W"])

    def step(self, number, views):
        queried, keyed = ((0, 1), (1, 0)) if self.symmetric else ((0,), (1,))
        queries, weights = self.query.embed([views[v] for v in queried])
        self.key.average(self.key_momentum, self.query)
        # Keys pass in the order of their views, as queries do.
        passed = sorted(keyed)
        keys = {v: k.array for v, k in zip(passed, self.key.embed([views[v] for v in passed])[0])}
        d, n = columns_unit(self.bank), len(views[0])
        loss, push = Value(np.float64(0)), np.zeros_like(self.bank)
        for q, v in zip(queries, keyed):
            logits = beside_own(q, keys[v], d)
            loss = add(loss, cross_entropy(scale(logits, 1 / self.temperature), np.zeros(n, int)))
            p = softmax(logits.array / self.bank_temperature)[:, 1:]
            across = q.array.T @ p / n - d * (p * (q.array @ d)).mean(0)
            push += across / np.linalg.norm(self.bank, axis=0) / self.bank_temperature
        loss.backward()
        self.optimizer.step(gradients(weights))
        self.velocity = self.bank_momentum * self.velocity - push
        self.bank = self.bank - self.bank_rate * self.velocity
        return {"loss": loss.array, "gradient_norm": norm(gradients(weights)), "W": self.bank.copy()}

    def end(self):
        return {"encoder_q": self.query.tensors(), "encoder_k": self.key.tensors(), "momentum": self.optimizer.momentum}
