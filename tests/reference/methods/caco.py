"""CaCo: Wang et al., TPAMI 2023, with its variants and the initialisation of its bank."""

import numpy as np

from derivatives import Value, add, beside_own, columns_unit, cross_entropy, scale, softmax, times
from network import Encoder
from optimizers import Lars, gradients
from tensors import within


class CaCo:
    def __init__(self, case, init):
        self.case = case
        self.query, self.key = (Encoder(case, within(init, "encoder_q.")) for _ in range(2))
        self.bank, self.velocity = init["bank.W"].copy(), np.zeros_like(init["bank.W"])
        constants = {name: case[name] for name in ("momentum", "weight_decay", "trust") if name in case}
        self.optimizer = Lars(self.query.parameters, case["lr"], **constants)
        self.enqueued = 0

    def pairs(self, views):
        """(query, key, weight) of every pair."""
        if self.case["mode"] == "sym":
            return [(0, 1, 1.0), (1, 0, 1.0)]
        large = [(0, 1), (1, 0)]
        small = [(i, j) for i in range(2, views) for j in (0, 1)]
        return [(i, j, 1 / len(large)) for i, j in large] + [(i, j, 1 / len(small)) for i, j in small]

    def step(self, number, views):
        if self.case["mode"] == "warm":
            return self.warm(views)
        c = self.case
        objective = c.get("objective", "CaCo")
        queries, weights = self.query.embed(views)
        self.key.average(c["key_momentum"], self.query)
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
        self.optimizer.step(gradients(weights))
        if objective == "Queue":
            self.enqueue(np.vstack(keys))
        elif objective != "FixedBank":
            self.velocity = c["bank_momentum"] * self.velocity - gradient
            self.bank = self.bank - c["bank_lr"] * self.velocity
        return {**output, "loss": loss.array, "W": self.bank.copy(), "v": self.velocity.copy()}

    def enqueue(self, keys):
        for key in keys:
            self.bank[:, self.enqueued % self.bank.shape[1]] = key
            self.enqueued += 1

    def warm(self, views):
        """One step of the bank initialisation; None if the bank is full."""
        free = self.bank.shape[1] - self.enqueued
        if not free:
            return None
        (q1, _), weights = self.query.embed(views)
        self.key.average(self.case["key_momentum"], self.query)
        (_, k2), _ = self.key.embed(views)
        logits = beside_own(q1, k2.array, columns_unit(self.bank))
        loss = cross_entropy(scale(logits, 1 / 0.2), np.zeros(len(views[0]), int))
        loss.backward()
        self.optimizer.step(gradients(weights))
        self.enqueue(k2.array[:free])
        return {"loss": loss.array, "W": self.bank.copy()}

    def end(self):
        if self.case["mode"] == "warm":
            self.key.average(0, self.query)
        return {"encoder_q": self.query.tensors(), "encoder_k": self.key.tensors(), "momentum": self.optimizer.momentum}
