"""SwAV: Caron et al. 2020, arXiv 2006.09882, without its queue of embeddings.

    c: prototypes [P, C], whose rows are scaled to unit length before a step
    z_v = unit(f_q(x_v)), s_v = z_v · cᵀ for all V views
    Q_i [N, P] = sinkhorn(exp(s_i / ε)) for the large views, i = 0 and 1; a constant
    loss = ½ Σ_i 1/(V − 1) Σ_{v ≠ i} mean over the batch of −Σ_p Q_i log softmax(s_v / τ)
"""

import numpy as np

from derivatives import Value, add, linear, scale, softmax
from network import Encoder
from optimizers import gradients, norm, optimizer
from tensors import within


def sinkhorn(scores, iterations):
    """The authors' distributed_sinkhorn, of exponentiated scores [N, P]."""
    q = scores.T / scores.sum()
    prototypes, n = q.shape
    for _ in range(iterations):
        q = q / q.sum(1, keepdims=True) / prototypes
        q = q / q.sum(0, keepdims=True) / n
    return (q * n).T


def cross_entropy(codes, logits):
    shifted = logits.array - logits.array.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    back = lambda g: (g * (softmax(logits.array) * codes.sum(1, keepdims=True) - codes) / len(codes),)
    return Value(-(codes * log_p).sum(1).mean(), (logits,), back)


class SwAV:
    def __init__(self, case, init, temperature, epsilon, iterations):
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze = case.get("freeze", [False] * case["steps"])
        self.encoder = Encoder(case, within(init, "encoder_q."))
        self.prototypes = init["prototypes.weight"].copy()
        self.optimizer = optimizer(case, self.encoder.parameters | {"prototypes.weight": self.prototypes})

    def step(self, number, views):
        self.prototypes /= np.maximum(np.linalg.norm(self.prototypes, axis=1, keepdims=True), 1e-12)
        embeddings, weights = self.encoder.embed(views)
        weights["prototypes.weight"] = prototypes = Value(self.prototypes)
        scores = [linear(z, prototypes) for z in embeddings]
        loss = Value(np.float64(0))
        for i in (0, 1):
            codes = sinkhorn(np.exp(scores[i].array / self.epsilon), self.iterations)
            for v in range(len(views)):
                if v != i:
                    term = cross_entropy(codes, scale(scores[v], 1 / self.temperature))
                    loss = add(loss, scale(term, 1 / 2 / (len(views) - 1)))
        loss.backward()
        if self.freeze[number]:
            del weights["prototypes.weight"]
        self.optimizer.step(gradients(weights))
        return {"loss": loss.array, "gradient_norm": norm(gradients(weights))}

    def end(self):
        return {
            "encoder_q": self.encoder.tensors(),
            "prototypes": {"weight": self.prototypes},
            "momentum": self.optimizer.momentum,
        }
