"""The optimizers. They change the arrays of parameters in place; a parameter without a gradient keeps its momentum."""

import numpy as np


class Lars:
    """You et al. 2017, arXiv 1708.03888, as CaCo's code has it: matrices and filters have weight decay and a rate of
    their own, biases and batch norm neither. The ratio's divisor includes the weight decay."""

    def __init__(self, parameters, rate, momentum, weight_decay, trust=0.001):
        self.parameters, self.rate, self.decay, self.trust = parameters, rate, weight_decay, trust
        self.factor, self.momentum = momentum, {n: np.zeros_like(p) for n, p in parameters.items()}

    def step(self, gradients):
        for name, g in gradients.items():
            p = self.parameters[name]
            if p.ndim > 1:
                g = g + self.decay * p
                norms = np.linalg.norm(p), np.linalg.norm(g)
                if norms[0] > 0 and norms[1] > 0:
                    g = g * self.trust * norms[0] / norms[1]
            self.momentum[name] = self.factor * self.momentum[name] + g
            p -= self.rate * self.momentum[name]


class Sgd:
    """PyTorch's SGD with momentum, neither damped nor Nesterov's. Weight decay is for all parameters."""

    def __init__(self, parameters, rate, momentum, weight_decay):
        self.parameters, self.rate, self.decay = parameters, rate, weight_decay
        self.factor, self.momentum = momentum, {n: np.zeros_like(p) for n, p in parameters.items()}

    def step(self, gradients):
        for name, g in gradients.items():
            p = self.parameters[name]
            self.momentum[name] = self.factor * self.momentum[name] + (g + self.decay * p)
            p -= self.rate * self.momentum[name]


def optimizer(case, parameters):
    ((name, constants),) = case["optimizer"].items()
    return {"Lars": Lars, "Sgd": Sgd}[name](parameters, case["lr"], **constants)


def gradients(weights):
    return {name: value.gradient for name, value in weights.items()}


def norm(gradients):
    return np.sqrt(sum((g**2).sum() for g in gradients.values()))
