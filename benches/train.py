#!/usr/bin/env python3
"""Compares training, from JPEG files to updated weights, with torch + torchvision on the same cores, alternating.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install pillow torch==2.11.0 torchvision==0.26.0
    cargo build --release
    /tmp/reference/bin/python benches/train.py FOLDER [--precision bf16] [--pairs 7]

FOLDER is in the ImageFolder layout, such as CIFAR-10 as JPEG files. Both sides train ResNet-18 of width 16 by the same
method at batch 128 on two views of 32 pixels with the paper's full single-crop augmentation. The other side is written
like published training code (`step.py`), with a DataLoader of two workers (`loader.py`). Prints one line of JSON per
precision.
"""
import argparse, json, os, statistics, subprocess, sys, time

import loader, step


def theirs(folder, precision, threads, workers, seconds):
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms as T

    shape = step.SHAPES["small"]
    views = loader.TwoViews(shape["size"])
    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for view in views.views:
        view.transforms[-1:] = [T.ToTensor(), normalise]
    images = datasets.ImageFolder(folder, views)
    data = DataLoader(images, shape["batch"], shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)
    train = step.trainer(shape, precision, threads)
    began, start, count, loss = time.perf_counter(), None, 0, float("nan")
    while True:
        for (one, two), _ in data:
            loss = train(*(view.contiguous(memory_format=torch.channels_last) for view in (one, two))).item()
            now = time.perf_counter()
            if start is None:  # the workers have started, and memory is allocated
                if now - began >= seconds / 4 + 3:
                    start = now
                continue
            count += len(one)
            if now - start >= seconds:
                return {"images_per_second": count / (now - start), "loss": loss}


def ours(folder, precision, threads, seconds, binary):
    shape = step.SHAPES["small"]
    command = [binary, "bench", "train", folder, "--json", "--arch", "resnet18", "--precision", precision, "--threads", threads, "--seconds", seconds]
    for name in ("width", "stem", "hidden", "dim", "size", "batch", "bank"):
        command += [f"--{name}", shape[name]]
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--precision", choices=("f32", "bf16"), action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--binary", default="target/release/caco")
    parser.add_argument("--theirs", action="store_true", help="measure the other side once, and print JSON")
    a = parser.parse_args()
    precisions = a.precision or ["f32", "bf16"]
    if a.theirs:
        print(json.dumps(theirs(a.folder, precisions[0], a.threads, a.workers, a.seconds)))
        return
    for precision in precisions:
        pairs = []
        other = [sys.executable, __file__, a.folder, "--theirs", "--precision", precision, "--threads", a.threads, "--workers", a.workers, "--seconds", a.seconds]
        for _ in range(a.pairs):
            baseline = json.loads(subprocess.run(list(map(str, other)), check=True, capture_output=True, text=True).stdout)
            mine = ours(a.folder, precision, a.threads, a.seconds, a.binary)
            pairs.append((mine["images_per_second"], baseline["images_per_second"]))
            print(f"  {precision}: ours {pairs[-1][0]:.1f}, theirs {pairs[-1][1]:.1f}; waiting {mine['waiting']:.2f}", file=sys.stderr)
        ratios = [mine / other for mine, other in pairs]
        print(json.dumps({
            "precision": precision, "threads": a.threads, "workers": a.workers,
            "images_per_second": round(statistics.median(p[0] for p in pairs), 1),
            "torchvision": round(statistics.median(p[1] for p in pairs), 1),
            "ratio": round(statistics.median(ratios), 2), "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }), flush=True)


if __name__ == "__main__":
    main()
