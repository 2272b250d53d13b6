"""Compares hashing of files outside the store with b3sum, in pairs: 60,000 small files, and one of 4 GiB.

    cargo install b3sum --root b3
    python benches/digest.py --b3sum b3/bin/b3sum               # a Markdown table; a few minutes, 5 GB of disk

Caco's time is all of `caco plan` on a pipeline of one stage that reads the folder or the file: startup, reading the
pipeline, listing, hashing, looking up the key. "Empty" starts without a store, so without a stat cache; "full" has
hashed the same files before. b3sum's time is `find | xargs b3sum` over the same files, with its output discarded. The
page cache is warm. Times are medians of alternating pairs after a warm-up; a ratio is the median over pairs.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

FILES, FOLDERS = 60_000, 60


def small_files(folder):
    """Creates 60,000 files of 1 to 5 KiB, about the size of small JPEGs, in 60 folders."""
    draw = random.Random(0)
    for i in range(FOLDERS):
        below = folder / f"class-{i:02}"
        below.mkdir(parents=True)
        for j in range(FILES // FOLDERS):
            (below / f"image-{j:04}.jpg").write_bytes(draw.randbytes(draw.randint(1 << 10, 5 << 10)))


def large_file(path, gib):
    draw = random.Random(0)
    with open(path, "wb") as file:
        for _ in range(gib * 64):
            file.write(draw.randbytes(1 << 24))


def timed(argv, folder, shell=False):
    env = {**os.environ, "CI": "1"}
    begun = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=env, shell=shell, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        sys.exit(f"{argv} ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    return seconds


def pairs(name, count, ours, theirs):
    rows = []
    for i in range(count + 1):
        if i % 2:
            rows.append((ours(), theirs()))
        else:
            b = theirs()
            rows.append((ours(), b))
        print(f"{name}: caco {rows[-1][0]:.3f} s, b3sum {rows[-1][1]:.3f} s", file=sys.stderr)
    rows = rows[1:]
    ratios = [a / b for a, b in rows]
    return {
        "name": name,
        "caco_s": statistics.median(a for a, _ in rows),
        "b3sum_s": statistics.median(b for _, b in rows),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caco", default="target/release/caco")
    parser.add_argument("--b3sum", default=shutil.which("b3sum") or "b3sum")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the files here for the next run")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    caco, b3sum = os.path.abspath(args.caco), os.path.abspath(args.b3sum)
    with tempfile.TemporaryDirectory() as temporary:
        root = (args.folder or pathlib.Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "many").exists():
            small_files(root / "many")
        if not (root / "large").exists():
            large_file(root / "large", args.gib)
        for name in ["many", "large"]:
            stage = f'command(shell: "true", inputs: {{"i": Path("{name}")}}, outputs: ["o"])'
            (root / f"{name}.ron").write_text(f'(stages: {{"read": {stage}}})')
        # A file younger than two seconds is not cached: it could change again in the same tick of the clock.
        time.sleep(2.5)

        def plan(name, empty):
            if empty:
                shutil.rmtree(root / "cache", ignore_errors=True)
            return timed([caco, "plan", f"{name}.ron"], root)

        every = f"find many -type f -print0 | xargs -0 {b3sum}"
        figures = [
            pairs("60,000 files, empty", args.pairs, lambda: plan("many", True), lambda: timed(every, root, shell=True)),
            pairs("60,000 files, full", args.pairs, lambda: plan("many", False), lambda: timed(every, root, shell=True)),
            pairs(f"{args.gib} GiB, empty", args.pairs, lambda: plan("large", True), lambda: timed([b3sum, "large"], root)),
        ]
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    print("| what | caco, s | b3sum, s | ratio (min – max) |\n|---|---|---|---|")
    for f in figures:
        ratio = f"{f['ratio']:.2f} ({f['ratio_min']:.2f} – {f['ratio_max']:.2f})"
        print(f"| {f['name']} | {f['caco_s']:.3f} | {f['b3sum_s']:.3f} | {ratio} |")


if __name__ == "__main__":
    main()
