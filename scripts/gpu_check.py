"""The checks of gpu-check.sh, which says how to run them. Only the standard library, and PyTorch in processes of its own."""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "out"
GIB = 1 << 30
TOO_FEW = 15  # seconds; with fewer left, a check waits for the next call

PIPELINE = """(
    name: "p",
    common: (
        model: (arch: ResNet18, width: WIDTH, stem: Cifar, hidden: 256, dim: 64),
        views: MultiCrop(size: 32, small: 16, count: 4), batch: BATCH, bank_size: 1024, seed: 0, precision: Bf16,
    ),
    stages: {
        "shapes": synthesize(domain: Shapes, classes: 8, train: IMAGES, test: 8, size: 40),
        "train": index(root: Stage("shapes/train")),
        "bank": init_bank(index: "train"),
        "pretrain": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 3, warmup: 1),
        "precise": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 6, warmup: 1, precision: F32, views: SingleCrop(size: 32)),
        "rounded": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 6, warmup: 1, precision: Bf16, views: SingleCrop(size: 32)),
    },
)"""

TRAINING = """(
    name: "training",
    common: (
        model: (arch: ResNet18, width: WIDTH, stem: Cifar, hidden: 2048, dim: 256),
        views: SingleCrop(size: 32), batch: BATCH, bank_size: 16384, seed: 0, precision: Bf16,
    ),
    stages: {
        "shapes": synthesize(domain: Shapes, classes: 10, train: IMAGES, test: 10, size: 40),
        "train": index(root: Stage("shapes/train")),
        "bank": init_bank(index: "train"),
        "pretrain": pretrain(index: "train", method: CaCo(init: "bank"), epochs: 1000, warmup: 2),
    },
)"""


class Skip(Exception):
    """A check that this machine cannot answer, and why."""


class Ended(Exception):
    """A program that took too long or failed, and what it said."""


class Later(Exception):
    """A check for which this call has no time left."""


class Checker:
    def __init__(self, device, seconds):
        self.device, self.deadline = device, time.monotonic() + seconds
        self.check, self.patience = "", 0
        # As caco sets it for its worker: some programs here run without caco.
        self.environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} | os.environ
        self.torch = self.find_torch()
        self.gpu = ""

    def find_torch(self):
        """The version of python3's PyTorch, whose libraries the programs then load."""
        code = "import torch; print(torch.__version__, torch.__path__[0])"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        if found.returncode:
            return ""
        version, folder = found.stdout.split(maxsplit=1)
        before = self.environment.get("LD_LIBRARY_PATH")
        self.environment["LD_LIBRARY_PATH"] = ":".join([f"{folder.strip()}/lib", *([before] if before else [])])
        return version

    @property
    def is_fake(self):
        return self.gpu.startswith("Fake")

    @property
    def is_small(self):
        """Whether sizes are small, since there is no real GPU."""
        return self.device == "cpu" or self.is_fake

    def need_numbers(self):
        if self.is_fake:
            raise Skip("a fake GPU computes nothing")

    def need_gpu(self):
        if self.device == "cpu":
            raise Skip("it needs a GPU")

    def run(self, command, may_fail=False, text="", **environment):
        """Runs a program within the time of the check. Its output is in the check's log."""
        left = min(self.patience, self.deadline) - time.monotonic()
        log = OUT / f"{self.check}.log"
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=OUT, env=self.environment | environment, start_new_session=True,
        )
        too_long = False
        try:
            out, err = process.communicate(text, timeout=max(left, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            too_long = True
        with log.open("a") as file:
            file.write(f"$ {' '.join(map(str, command))}\n{out}{err}")
        if too_long and time.monotonic() > self.deadline - 1:
            raise Later()
        if too_long:
            raise Ended(f"{pathlib.Path(command[0]).name} took too long, and was killed (see {log})")
        if process.returncode and not may_fail:
            last = [line for line in err.splitlines() if line.strip()][-1:] or [f"exit code {process.returncode}"]
            raise Ended(f"{last[0][:300]} (see {log})")
        return process.returncode, out, err

    def bench(self, *arguments, may_fail=False, **options):
        flags = [f"--{name}={value}" for name, value in options.items()]
        code, out, err = self.run([HERE / "caco", "bench", "step", "--json", *flags, *arguments], may_fail)
        return (code, out, err) if may_fail else json.loads(out)

    def step(self, device):
        """A step of a tiny network, and what the worker says about it."""
        setup = {
            "model": {"arch": "ResNet18", "width": 16, "stem": "Cifar", "hidden": 64, "dim": 32},
            "views": {"SingleCrop": {"size": 32}}, "batch": 16, "bank": 256, "precision": "Bf16", "activations": "Keep",
            "device": device, "threads": 2, "steps": 2,
        }
        _, out, err = self.run([HERE / "caco-worker", "--bench-step"], text=json.dumps(setup))
        return json.loads(out)["class"], err

    def caco(self, *arguments, cache="cache", **environment):
        return self.run([HERE / "caco", *arguments, "--cache", OUT / cache], **environment)

    def outputs(self, stage, cache, *more):
        _, out, _ = self.caco("show", stage, "--pipeline", "p.ron", "--json", *more, cache=cache)
        return {output["name"]: output["blake3"] for output in json.loads(out)["result"]["outputs"]}

    def curve(self, stage, cache="cache", pipeline="p.ron"):
        _, out, _ = self.caco("get", f"{stage}/curve", "-", "--pipeline", pipeline, cache=cache)
        return [json.loads(line) for line in out.splitlines()]


# Each check yields its results: name, value, bar, and whether the value is within it.


def machine(c):
    listed = pathlib.Path("/proc/driver/nvidia/gpus")
    files = [file for file in pathlib.Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    yield "gpus", f"{len(list(listed.iterdir())) if listed.exists() else 'no'} listed, {len(files)} files", "a number", True
    if shutil.which("nvidia-smi"):
        _, out, _ = c.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], True)
        yield "nvidia-smi", out.strip().replace("\n", "; "), "a text", True
    _, out, _ = c.run(["ldd", HERE / "caco-worker"], True)
    missing = re.findall(r"(\S+) => not found", out)
    yield "libraries", ", ".join(missing) or "all found", "all found", not missing


def device(c):
    chosen, _ = c.step(c.device)
    c.gpu = chosen.get("gpu", "")
    yield "torch", c.torch or "none", "2.11.0", c.torch.startswith("2.11.0") or c.is_small
    yield "class", json.dumps(chosen), "names a GPU", c.device == "cpu" or bool(c.gpu)
    chosen, said = c.step("auto")
    line = next((line for line in said.splitlines() if "device" in line), "")
    yield "auto", line.strip(), "the same device", chosen.get("gpu", "") == c.gpu or c.device == "cpu"


def doctor(c):
    _, out, _ = c.run([HERE / "caco", "doctor", "--json"], True)
    for finding in json.loads(out):
        if finding["what"] in ("kernels", "GPU", "CUDA"):
            is_absent = c.device == "cpu" and finding["what"] == "GPU" and finding.get("help") is None
            yield finding["what"], finding["found"], "ok", finding["ok"] or is_absent


def parity(c):
    c.need_numbers()
    cases = sorted(path.parent for path in (HERE / "cases").glob("*/case.json"))
    for case in cases:
        _, out, err = c.run([HERE / "replay", "--device", c.device, case], True)
        worst = json.loads(out)["worst"] if out.strip() else None
        value = err.strip().splitlines()[-1] if worst is None else f"{worst:.1e}"
        yield case.name, value, "1e-9", worst is not None and worst <= 1e-9


def kernels(c):
    c.need_numbers()
    yield from unit_tests(c, "bridge::", "contrast::")


def resuming(c):
    c.need_numbers()
    yield from unit_tests(c, "fit::")


def unit_tests(c, *names):
    code, out, _ = c.run([HERE / "learn-tests", *names, "--test-threads=1"], True, CACO_TEST_DEVICE=c.device)
    for name, verdict in re.findall(r"^test (\S+) \.\.\. (\S+)", out, re.M):
        yield name, verdict, "ok", verdict == "ok"
    yield "all", f"exit code {code}", "exit code 0", code == 0


def determinism(c):
    c.need_numbers()
    write_pipeline(c)
    recompute = ["--set", "pretrain.activations=Recompute"]
    c.caco("run", "p.ron", "bank", "--device", c.device, cache="first")
    for cache in ("again", "recomputed", "killed"):
        shutil.rmtree(OUT / cache, ignore_errors=True)
        shutil.copytree(OUT / "first", OUT / cache, symlinks=True)
    c.caco("run", "p.ron", "pretrain", "--device", c.device, cache="first")
    c.caco("run", "p.ron", "pretrain", "--device", c.device, cache="again")
    c.caco("run", "p.ron", "pretrain", "--device", c.device, *recompute, cache="recomputed")
    kills = sum(kill_after_a_checkpoint(c, "killed") for _ in range(3))
    c.caco("run", "p.ron", "pretrain", "--device", c.device, cache="killed")
    first = c.outputs("pretrain", "first")
    for cache, more in (("again", []), ("recomputed", recompute), ("killed", [])):
        found = c.outputs("pretrain", cache, *more)
        differ = [name for name in ("encoder", "bank", "curve") if found[name] != first[name]]
        value = f"{', '.join(differ)} differ" if differ else "equal bytes"
        yield cache, value + (f" after {kills} kills" if cache == "killed" else ""), "equal bytes", not differ


def kill_after_a_checkpoint(c, cache):
    """Starts the training, and kills it when it has written a checkpoint. False if it ended before."""
    checkpoints = lambda: {path.name for path in (OUT / cache / "work").glob("*/checkpoint-*")}
    before = checkpoints()
    command = [HERE / "caco", "run", "p.ron", "pretrain", "--device", c.device, "--cache", OUT / cache]
    process = subprocess.Popen(
        command, cwd=OUT, env=c.environment | {"CACO_CHECKPOINT_SECONDS": "0"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not checkpoints() - before and time.monotonic() < c.patience:
        time.sleep(0.02)
    was_running = process.poll() is None
    if was_running:
        process.kill()
    process.wait()
    return was_running


def precision(c):
    c.need_numbers()
    write_pipeline(c)
    c.caco("run", "p.ron", "precise", "rounded", "--device", c.device)
    precise, rounded = c.curve("precise"), c.curve("rounded")
    end = lambda rows: statistics.mean(row["loss"] for row in rows[-10:])
    # A few steps of small batches are noisier.
    yield from near("bf16", end(rounded), end(precise), 0.05 if c.is_small else 0.02)
    if c.device != "cpu":
        c.caco("run", "p.ron", "precise", "--device", "cpu", cache="cpu")
        here = c.curve("precise", cache="cpu")
        yield from near("cpu, first 10 steps", statistics.mean(r["loss"] for r in precise[:10]), statistics.mean(r["loss"] for r in here[:10]), 0.005)
        yield from near("cpu", end(precise), end(here), 0.02)
    spread = rounded[-1]["spread"]
    yield "spread", f"{spread:.2f}", "0.3 to 1.1", 0.3 <= spread <= 1.1


def write_pipeline(c):
    width, batch, images = (8, 16, 48) if c.is_small else (16, 64, 640)
    (OUT / "p.ron").write_text(PIPELINE.replace("WIDTH", str(width)).replace("BATCH", str(batch)).replace("IMAGES", str(images)))


def near(name, value, other, bar):
    yield name, f"loss {value:.4f} and {other:.4f}", f"{bar:.1%} apart at most", abs(value / other - 1) <= bar


def speed(c):
    c.need_numbers()
    if not c.torch:
        raise Skip("python3 has no PyTorch to compare with")
    shape, batch, steps, pairs = ("small", 32, 3, 1) if c.is_small else ("large", 256, 10, 3)
    size = {"small": ["--width=16", "--stem=cifar", "--hidden=256", "--dim=64", "--size=32", "--bank=4096", "--arch=resnet18"], "large": []}
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(c.bench(*size[shape], device=c.device, precision="bf16", batch=batch, steps=steps)["images_per_second"])
        command = [sys.executable, HERE / "step.py", "--eager", "--shape", shape, "--precision", "bf16", "--steps", steps]
        _, out, _ = c.run([*command, "--device", c.device, "--batch", batch])
        theirs.append(json.loads(out)["images_per_second"])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    yield "beside eager PyTorch", f"{ratio:.2f} times, {statistics.median(ours):.0f} and {statistics.median(theirs):.0f} images/s", "0.97 times", ratio >= 0.97
    bar = 850 if "H200" in c.gpu else 700 if "H100" in c.gpu else 0
    yield "images/s", f"{statistics.median(ours):.0f}", bar or "a number", statistics.median(ours) >= bar


def memory(c):
    c.need_gpu()
    rates = {}
    for name, batch, views, activations, bar in (
        ("Recompute 1024", 1024, "single", "recompute", 36), ("Keep 1024", 1024, "single", "keep", 98),
        ("multi-crop Recompute 512", 512, "multi", "recompute", 27),
    ):
        steps = 1 if c.is_fake else 3
        code, out, err = c.bench(may_fail=True, device=c.device, precision="bf16", batch=batch, views=views, activations=activations, steps=steps)
        if code:
            is_short = "too little memory" in err
            yield name, err.strip().splitlines()[-1][:200], f"{bar} GiB", is_short and activations == "keep"
            continue
        report = json.loads(out)
        rates[activations, batch] = report["images_per_second"]
        taken = report["gpu_memory"]["reserved"] / GIB
        yield name, f"{taken:.1f} GiB, {report['images_per_second']:.0f} images/s", f"{bar} GiB", taken <= bar
    if ("keep", 1024) in rates and not c.is_fake:
        share = rates["recompute", 1024] / rates["keep", 1024]
        yield "speed of Recompute", f"{share:.2f} of Keep", "0.75 to 0.9", 0.75 <= share <= 0.9


def out_of_memory(c):
    c.need_gpu()
    code, _, err = c.bench(may_fail=True, device=c.device, precision="bf16", batch=6144, steps=1)
    lines = [line for line in err.splitlines() if line.strip() and "INFO" not in line]
    said = next((line for line in lines if "too little memory" in line), lines[-1] if lines else "nothing")
    yield "error", said[:300], "names memory and Recompute", code != 0 and "too little memory" in said and "Recompute" in said
    yield "lines", len(lines), "5", len(lines) <= 5


def loader(c):
    (OUT / "training.ron").write_text(training_pipeline(c))
    c.caco("run", "training.ron", "shapes")
    c.caco("get", "shapes/train", OUT / "images", "--pipeline", "training.ron") if not (OUT / "images").exists() else None
    _, out, _ = c.run([HERE / "caco", "bench", "loader", OUT / "images", "--size", "32", "--seconds", "4", "--json"])
    report = json.loads(out)
    each = report["images_per_second"] / report["threads"]
    yield "images/s a thread", f"{each:.0f} with {report['threads']} threads", "5000 on 16 threads", each >= 5000 or report["threads"] < 16


def training_pipeline(c):
    width, batch, images = (16, 64, 1280) if c.is_small else (64, 512, 51_200)
    return TRAINING.replace("WIDTH", str(width)).replace("BATCH", str(batch)).replace("IMAGES", str(images))


def training(c):
    """Trains for as long as there is time, to be resumed."""
    c.need_numbers()
    minutes = min(0.3 if c.is_small else 4, (c.patience - time.monotonic()) / 60 - 0.3)
    (OUT / "training.ron").write_text(training_pipeline(c))
    code, _, err = c.run([HERE / "caco", "run", "training.ron", "bank", "--device", c.device, "--cache", OUT / "cache"])
    log, pace = None, []
    for name in ("stopped", "resumed"):
        command = [HERE / "caco", "run", "training.ron", "pretrain", "--device", c.device, "--cache", OUT / "cache"]
        code, _, err = c.run([*command, "--max-time", minutes * (0.8 if name == "stopped" else 0.2)], True)
        log = newest((OUT / "cache" / "work").glob("*/log"))
        yield name, f"exit code {code}", "exit code 75 (stopped at a checkpoint)", code == 75
        pace.append([json.loads(line) for line in newest((OUT / "cache" / "work").glob("*/byproducts/pace.jsonl")).read_text().splitlines()])
    text = log.read_text()
    yield "resumes", text.count("resuming at"), "at least 1", "resuming at" in text
    rows = pace[0][2:] or pace[0]
    rate, waiting = statistics.median(row["images_per_second"] for row in rows), statistics.median(row["loader_wait"] for row in rows)
    yield "images/s", f"{rate:.0f}", 0 if c.is_small else 4000, rate >= (0 if c.is_small else 4000)
    yield "waiting for the loader", f"{waiting:.1%}", "5 %", waiting < 0.05 or c.is_small
    steps = pace[-1][-1]["step"]
    # Each start writes a few lines of its own.
    lines = max(len(text.splitlines()) - 10, 0) / steps
    yield "lines of log a step", f"{lines:.3f}", "0.1", lines < 0.1
    losses = [json.loads(line)["loss"] for line in newest((OUT / "cache" / "work").glob("*/curve.jsonl")).read_text().splitlines()]
    tenth = max(len(losses) // 10, 1)
    fell = statistics.mean(losses[-tenth:]) < statistics.mean(losses[:tenth])
    yield "loss", f"{losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps", "falls", fell


def newest(paths):
    return max(paths, key=lambda path: path.stat().st_mtime)


# With the seconds that each may take.
CHECKS = [
    (machine, 30), (device, 60), (doctor, 90), (parity, 120), (kernels, 120), (determinism, 150), (memory, 150),
    (out_of_memory, 60), (precision, 90), (speed, 200), (loader, 60), (training, 330), (resuming, 200),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="the GPU to check, or cpu")
    parser.add_argument("--seconds", type=float, default=600, help="how long this call may take")
    parser.add_argument("--only", action="append", metavar="CHECK", help="run this check, also if it was run before")
    a = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    file = OUT / "report.json"
    report = json.loads(file.read_text()) if file.exists() else {"device": a.device, "checks": {}}
    if report["device"] != a.device:
        sys.exit(f"error: {OUT} is of {report['device']}; remove it to check {a.device}")
    checker = Checker(a.device, a.seconds)
    checker.gpu = report.get("gpu", "")
    later = []
    for check, seconds in CHECKS:
        name = check.__name__
        if a.only and name not in a.only or not a.only and name in report["checks"]:
            continue
        left = checker.deadline - time.monotonic()
        if left < max(TOO_FEW, seconds / 3):
            later.append(name)
            continue
        begun = time.monotonic()
        checker.check, checker.patience = name, begun + seconds
        (OUT / f"{name}.log").unlink(missing_ok=True)
        results = []
        try:
            for part, value, bar, ok in check(checker):
                results.append(show(f"{name}: {part}", "PASS" if ok else "FAIL", value, bar))
        except Skip as why:
            results.append(show(name, "SKIP", why, ""))
        except Later:
            later.append(name)
            continue
        except Exception as error:  # whatever goes wrong in one check, the others run
            results.append(show(name, "FAIL", f"{type(error).__name__}: {error}", "no error"))
        report["gpu"] = checker.gpu
        report["checks"][name] = {"seconds": round(time.monotonic() - begun, 1), "results": results}
        file.write_text(json.dumps(report, indent=1) + "\n")
    verdicts = [result["verdict"] for check in report["checks"].values() for result in check["results"]]
    print(f"{verdicts.count('PASS')} passed, {verdicts.count('FAIL')} failed, {verdicts.count('SKIP')} skipped; report: {file}")
    if later:
        print(f"not run for lack of time: {', '.join(later)}; run the same command again for them")
    sys.exit(1 if "FAIL" in verdicts else 75 if later else 0)


def show(name, verdict, value, bar):
    print(f"{verdict} {name:40} {value}  {f'[{bar}]' if bar != '' else ''}", flush=True)
    return {"name": name, "verdict": verdict, "value": str(value), "bar": str(bar)}


if __name__ == "__main__":
    main()
