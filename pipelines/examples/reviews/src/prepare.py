"""Splits the reviews into training and test rows."""

import csv
import json
import os
import random

settings = json.load(open("params.json"))["prepare"]
rows = list(csv.DictReader(open("data/reviews.csv")))
random.Random(settings["seed"]).shuffle(rows)
held_out = round(settings["share"] * len(rows))
os.makedirs("prepared", exist_ok=True)
for name, part in [("test", rows[:held_out]), ("train", rows[held_out:])]:
    with open(f"prepared/{name}.csv", "w") as file:
        writer = csv.DictWriter(file, ["label", "text"])
        writer.writeheader()
        writer.writerows(part)
