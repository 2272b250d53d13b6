"""Accuracy on the test rows."""

import json

threshold = json.load(open("params.json"))["evaluate"]["threshold"]
model, rows = json.load(open("model.json")), json.load(open("features/test.json"))
right = 0
for row in rows:
    score = model["bias"] + sum(w * x for w, x in zip(model["weights"], row["x"]))
    right += (score > threshold) == (row["label"] == 1)
json.dump({"test": {"accuracy": right / len(rows)}}, open("scores.json", "w"))
