"""Compares the engine with ninja, in pairs: nothing to do, a first run, one source changed.

    python3 -m venv venv && venv/bin/pip install ninja
    python benches/ninja.py --ninja venv/bin/ninja                 # a Markdown table; about 10 minutes on two cores
    python benches/ninja.py --ninja venv/bin/ninja --only first --pairs 3 --json

Both build the same graph: N small stages in layers of 100, each reading two outputs of the layer above (the first layer:
two source files) and writing one small file by `cat $in | cksum > $out`, two at a time. Every number is the median of
alternating pairs after a warm-up; a ratio is the median of the ratios of pairs. Caco publishes durably: published
results are synced; ninja syncs nothing. Before every measurement the disk is synced, which is not timed.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

WIDTH = 100
BARS = {"no-op 10000": 4, "plan 10000": 4, "first 1000": 3, "edit 10000": 3}


def parents(layer, i):
    """The two inputs of stage `i` of a layer: outputs of the layer above, or source files."""
    return (2 * i, 2 * i + 1) if layer == 0 else (i, (i + 1) % WIDTH)


def lay_out(folder, count):
    """Writes the sources and both build files."""
    (folder / "src").mkdir(parents=True)
    for i in range(2 * WIDTH):
        (folder / "src" / str(i)).write_text(f"source {i}\n")
    ninja = ["rule sum\n  command = cat $in | cksum > $out\n"]
    ron = ["(\n    stages: {\n"]
    for n in range(count):
        layer, i = divmod(n, WIDTH)
        a, b = parents(layer, i)
        above = "src/{}" if layer == 0 else f"out/{layer - 1}.{{}}"
        ninja.append(f"build out/{layer}.{i}: sum {above.format(a)} {above.format(b)}\n")
        source = 'Path("src/{}")' if layer == 0 else f'Stage("{layer - 1}.{{}}")'
        inputs = f'{{"a": {source.format(a)}, "b": {source.format(b)}}}'
        ron.append(f'        "{layer}.{i}": command(shell: "cat a b | cksum > out", inputs: {inputs}, outputs: ["out"]),\n')
    ron.append("    },\n)\n")
    (folder / "build.ninja").write_text("".join(ninja))
    (folder / "p.ron").write_text("".join(ron))


class Contest:
    def __init__(self, args):
        self.caco, self.ninja, self.pairs = os.path.abspath(args.caco), os.path.abspath(args.ninja), args.pairs
        self.jobs = args.jobs
        self.env = {**os.environ, "CI": "1"}
        self.env.pop("CACO_CACHE", None)

    def measure(self, argv, folder):
        """Seconds, peak memory (MiB) and stdout of a command that must succeed."""
        os.sync()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            begun = time.perf_counter()
            child = subprocess.Popen(argv, cwd=folder, stdout=out, stderr=err, env=self.env)
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - begun
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                err.seek(0)
                sys.exit(f"{' '.join(argv)} ended with {child.returncode}:\n{err.read().decode()[-2000:]}")
            out.seek(0)
            return seconds, usage.ru_maxrss / 1024, out.read().decode()

    def run_caco(self, folder, *more):
        return self.measure([self.caco, "run", "p.ron", "-j", str(self.jobs), *more], folder)

    def plan_caco(self, folder):
        return self.measure([self.caco, "plan", "p.ron"], folder)

    def run_ninja(self, folder):
        return self.measure([self.ninja, "-j", str(self.jobs)], folder)

    def pair(self, name, caco, ninja, before=lambda: None):
        """Alternating pairs of two measurements, the first pair a warm-up."""
        rows = []
        for i in range(self.pairs + 1):
            before()
            if i % 2:
                rows.append((caco(), ninja()))
            else:
                theirs = ninja()
                rows.append((caco(), theirs))
            print(f"{name}: caco {rows[-1][0][0]:.3f} s, ninja {rows[-1][1][0]:.3f} s", file=sys.stderr)
        rows = rows[1:]
        ratios = [ours[0] / theirs[0] for ours, theirs in rows]
        return {
            "name": name,
            "caco_s": statistics.median(ours[0] for ours, _ in rows),
            "ninja_s": statistics.median(theirs[0] for _, theirs in rows),
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "caco_mib": max(ours[1] for ours, _ in rows),
            "ninja_mib": max(theirs[1] for _, theirs in rows),
        }, rows


def built(contest, root, count):
    """A folder in which both tools have built everything."""
    folder = root / f"n{count}"
    if not folder.exists():
        lay_out(folder, count)
    contest.run_caco(folder)
    contest.run_ninja(folder)
    return folder


def no_op(contest, root, count):
    folder = built(contest, root, count)
    run, rows = contest.pair(f"no-op {count}", lambda: contest.run_caco(folder), lambda: contest.run_ninja(folder))
    assert all("no work to do" in theirs[2] for _, theirs in rows)
    plan, rows = contest.pair(f"plan {count}", lambda: contest.plan_caco(folder), lambda: contest.run_ninja(folder))
    assert all(f"0 to run, 0 may run, {count} cached" in ours[2] for ours, _ in rows)
    return [run, plan]


def first(contest, root, count):
    # A folder for every pair: ext4 skips inodes freed within the last minute one by one, so removing the files of one
    # pair would slow down the next.
    with tempfile.TemporaryDirectory(dir=root) as fresh:
        folders = [pathlib.Path(fresh) / str(i) for i in range(contest.pairs + 1)]
        for folder in folders:
            lay_out(folder, count)
        mine, theirs = iter(folders), iter(folders)
        run = f"first {count}"
        figures, _ = contest.pair(run, lambda: contest.run_caco(next(mine)), lambda: contest.run_ninja(next(theirs)))
    return [figures]


def edit(contest, root, count):
    folder = built(contest, root, count)
    one, two = folder / "src/0", folder / "src/1"
    ran = lambda printed: len(json.loads(printed)["ran"])
    finished = lambda printed: int(re.findall(r"\[(\d+)/\d+\]", printed)[-1])

    def change():
        one.write_text(f"changed at {time.time_ns()}\n")

    figures, rows = contest.pair(
        f"edit {count}", lambda: contest.run_caco(folder, "--json"), lambda: contest.run_ninja(folder), change
    )
    affected = sum(min(layer + 1, WIDTH) for layer in range(count // WIDTH))
    figures["affected"] = affected
    figures["caco_ran"], figures["ninja_ran"] = {ran(o[2]) for o, _ in rows}, {finished(t[2]) for _, t in rows}
    assert figures["caco_ran"] == figures["ninja_ran"] == {affected}, figures
    # The bytes move from one file to its neighbour: the stage that reads both has the same output as before.
    two.write_text(one.read_text() + two.read_text())
    one.write_text("")
    figures["caco_ran_cutoff"] = ran(contest.run_caco(folder, "--json")[2])
    figures["ninja_ran_cutoff"] = finished(contest.run_ninja(folder)[2])
    assert figures["caco_ran_cutoff"] == 1, figures
    figures["caco_ran"], figures["ninja_ran"] = affected, affected
    return [figures]


def table(figures):
    lines = [
        "| what | caco, s | ninja, s | ratio (min – max) | caco, peak MiB | ninja, peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for f in figures:
        bar = BARS.get(f["name"])
        bar = f"; bar {bar}" if bar else ""
        lines.append(
            f"| {f['name']} | {f['caco_s']:.3f} | {f['ninja_s']:.3f} | "
            f"{f['ratio']:.2f} ({f['ratio_min']:.2f} – {f['ratio_max']:.2f}{bar}) | {f['caco_mib']:.0f} | {f['ninja_mib']:.0f} |"
        )
        if "affected" in f:
            lines.append(
                f"| stages run of {f['affected']} affected | {f['caco_ran']} | {f['ninja_ran']} | with early cutoff: "
                f"{f['caco_ran_cutoff']} against {f['ninja_ran_cutoff']} | | |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caco", default="target/release/caco")
    parser.add_argument("--ninja", default=shutil.which("ninja") or "ninja")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the built graphs here for the next run")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=["no-op", "large", "first", "edit"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    contest = Contest(args)
    parts = {
        "no-op": lambda root: no_op(contest, root, 10_000),
        "large": lambda root: no_op(contest, root, 100_000),
        "first": lambda root: first(contest, root, 1_000),
        "edit": lambda root: edit(contest, root, 10_000),
    }
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or pathlib.Path(temporary)
        figures = [f for name, part in parts.items() if not args.only or name in args.only for f in part(root)]
    print(json.dumps(figures, indent=2) if args.json else table(figures))


if __name__ == "__main__":
    main()
