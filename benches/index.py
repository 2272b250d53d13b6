"""Compares indexing a folder of images with `dvc add` on the same folder: the first time, and a second time.

    pip install dvc                                    # in a separate environment, first on PATH
    cargo build --release
    python benches/index.py FOLDER [--pairs 3]         # FOLDER in the ImageFolder layout, such as 60,000 files

`dvc add` hashes every file and links or copies it into its cache. `caco run` of one index stage hashes every file and
the tree, and decodes every image in full, to detect truncated ones. Cold means that neither tool has seen the folder
before; with --drop-caches (root) the page cache is empty too. Each tool works on its own copy.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
CACO = pathlib.Path(os.environ.get("CACO", HERE / "target/release/caco"))
PIPELINE = '(stages: {"images": index(root: Path("images"))})'


def timed(*command, cwd):
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def fresh(images, parent):
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
    subprocess.run(["cp", "-r", "--reflink=never", images, folder / "images"], check=True)
    os.sync()
    return folder


def forget(drop):
    if drop:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def dvc(images, parent, drop):
    folder = fresh(images, parent)
    timed("git", "init", "-q", cwd=folder)
    timed("dvc", "init", "-q", cwd=folder)
    forget(drop)
    return [timed("dvc", "add", "-q", "images", cwd=folder) for _ in range(2)]


def caco(images, parent, drop):
    folder = fresh(images, parent)
    (folder / "p.ron").write_text(PIPELINE)
    forget(drop)
    return [timed(CACO, "run", "p.ron", cwd=folder) for _ in range(2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--drop-caches", action="store_true")
    a = parser.parse_args()
    os.environ.setdefault("CACO_KEYS", tempfile.mkdtemp())
    images = pathlib.Path(a.folder).resolve()
    files = sum(len(names) for _, _, names in os.walk(images))
    pairs = []
    for pair in range(a.pairs):
        with tempfile.TemporaryDirectory() as parent:
            sides = [caco, dvc] if pair % 2 == 0 else [dvc, caco]
            pairs.append({side.__name__: side(images, parent, a.drop_caches) for side in sides})
    for turn, name in enumerate(("cold", "warm")):
        ratios = [pair["dvc"][turn] / pair["caco"][turn] for pair in pairs]
        seconds = {side: round(statistics.median(pair[side][turn] for pair in pairs), 2) for side in ("caco", "dvc")}
        print(json.dumps({"files": files, "turn": name, **seconds, "ratio": round(statistics.median(ratios), 1),
                          "ratio_range": [round(min(ratios), 1), round(max(ratios), 1)]}))


if __name__ == "__main__":
    main()
