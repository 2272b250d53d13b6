"""BYOL: Grill et al. 2020, arXiv 2006.07733.

    p = unit(P(f_q(x))), z = unit(f_k(x)) for both views; P takes f_q's output as it is, not at unit length
    loss = mean over the batch of (2 − 2 p0 · z1) + (2 − 2 p1 · z0)
    f_k ← m f_k + (1 − m) f_q                                     after the step, with the new f_q
"""

import numpy as np

from derivatives import Value, add, batch_norm, linear, relu, unit
from network import Encoder, is_buffer
from optimizers import gradients, norm, optimizer
from tensors import within


def distance(p, z):
    """Mean squared distance of unit vectors; z is a constant."""
    n = len(z)
    return Value((2 - 2 * (p.array * z).sum(1)).mean(), (p,), lambda g: (g * -2 * z / n,))


class BYOL:
    def __init__(self, case, init, key_momentum):
        self.key_momentum = key_momentum
        self.query, self.key = (Encoder(case, within(init, "encoder_q.")) for _ in range(2))
        self.predictor = {n: t.copy() for n, t in init.items() if n.startswith("predictor.")}
        parameters = {n: t for n, t in self.predictor.items() if not is_buffer(n)}
        self.optimizer = optimizer(case, self.query.parameters | parameters)

    def predict(self, x, weights):
        x = linear(x, weights["predictor.0.weight"])
        x = relu(batch_norm(x, weights, "predictor.1", self.predictor))
        return unit(linear(x, weights["predictor.3.weight"]))

    def step(self, number, views):
        if len(views) != 2:
            raise ValueError(f"BYOL takes two views, not {len(views)}")
        outputs, weights = self.query.project(views)
        weights |= {n: Value(t) for n, t in self.predictor.items() if not is_buffer(n)}
        p0, p1 = [self.predict(x, weights) for x in outputs]
        z0, z1 = [z.array for z in self.key.embed(views)[0]]
        loss = add(distance(p0, z1), distance(p1, z0))
        loss.backward()
        self.optimizer.step(gradients(weights))
        self.key.average(self.key_momentum, self.query)
        return {"loss": loss.array, "gradient_norm": norm(gradients(weights))}

    def end(self):
        return {
            "encoder_q": self.query.tensors(),
            "encoder_k": self.key.tensors(),
            "predictor": within(self.predictor, "predictor."),
            "momentum": self.optimizer.momentum,
        }
