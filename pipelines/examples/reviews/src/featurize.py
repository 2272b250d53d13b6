"""Counts of the most frequent words."""

import collections
import csv
import json
import os

from text import words

size = json.load(open("params.json"))["featurize"]["words"]
splits = {name: list(csv.DictReader(open(f"prepared/{name}.csv"))) for name in ["train", "test"]}
counts = collections.Counter(word for row in splits["train"] for word in words(row["text"]))
known = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]]
os.makedirs("features", exist_ok=True)
for name, rows in splits.items():
    table = [{"label": int(row["label"]), "x": [words(row["text"]).count(word) for word in known]} for row in rows]
    json.dump(table, open(f"features/{name}.json", "w"))
