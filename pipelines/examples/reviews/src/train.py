"""Logistic regression by gradient descent."""

import json
import math

settings = json.load(open("params.json"))["train"]
rows = json.load(open("features/train.json"))
weights, bias = [0.0] * len(rows[0]["x"]), 0.0
for _ in range(settings["epochs"]):
    for row in rows:
        score = bias + sum(w * x for w, x in zip(weights, row["x"]))
        error = 1 / (1 + math.exp(-score)) - row["label"]
        bias -= settings["rate"] * error
        weights = [w - settings["rate"] * error * x for w, x in zip(weights, row["x"])]
json.dump({"weights": weights, "bias": bias}, open("model.json", "w"))
