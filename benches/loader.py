#!/usr/bin/env python3
"""Compares loader throughput with a torchvision DataLoader of as many workers as threads here, in alternating runs.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install pillow torchvision
    cargo build --release
    /tmp/reference/bin/python benches/loader.py FOLDER --size 32 [--enlarge 500x375] [--pairs 5]

FOLDER is in the ImageFolder layout. Both sides read JPEG files and return uint8 batches of two views with the paper's
full single-crop augmentation; neither converts to float. With --enlarge, images are first enlarged (the short side to
the second number, centre-cropped to that size, quality 95) into a temporary folder, as a substitute for photographs of
ImageNet's size. Prints one line of JSON.
"""
import argparse, json, pathlib, random, shutil, statistics, subprocess, tempfile, time

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from torchvision import datasets, transforms as T


class Blur:
    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def to_bytes(image):
    return torch.from_numpy(np.array(image))


class TwoViews:
    """The paper's two views: blur always on the first and rarely on the second, solarize only on the second."""

    def __init__(self, size):
        def view(blur, solarize):
            return T.Compose([
                T.RandomResizedCrop(size, scale=(0.2, 1.0)),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                T.RandomGrayscale(p=0.2),
                T.RandomApply([Blur()], p=blur),
                T.RandomSolarize(128, p=solarize),
                T.RandomHorizontalFlip(),
                to_bytes,
            ])

        self.views = [view(1.0, 0.0), view(0.1, 0.2)]

    def __call__(self, image):
        return [view(image) for view in self.views]


def theirs(folder, size, batch, workers, seconds):
    loader = DataLoader(datasets.ImageFolder(folder, TwoViews(size)), batch, shuffle=True, drop_last=True, num_workers=workers)
    images, start = 0, None
    while True:
        for i, (_, labels) in enumerate(loader):
            now = time.perf_counter()
            if start is None:  # the workers have started and filled their queues
                if i == 2:
                    start = now
                continue
            images += len(labels)
            if now - start >= seconds:
                return images / (now - start)


def ours(folder, size, batch, threads, seconds, binary):
    command = [binary, "bench", "loader", folder, "--json", "--size", size, "--batch", batch, "--threads", threads, "--seconds", seconds]
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def enlarge(folder, to, width, height, count):
    files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    for file in files[:: max(len(files) // count, 1)]:
        image = Image.open(file).convert("RGB")
        scale = max(width / image.width, height / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        target = to / file.parent.name / (file.stem + ".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + width, top + height)).save(target, quality=95)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--enlarge", help="WIDTHxHEIGHT")
    parser.add_argument("--binary", default="target/release/caco")
    a = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.folder
        if a.enlarge:
            folder = pathlib.Path(temporary)
            enlarge(a.folder, folder, *map(int, a.enlarge.split("x")), count=1500)
        pairs = []
        for _ in range(a.pairs):
            torchvision = theirs(folder, a.size, a.batch, a.threads, a.seconds)
            report = ours(folder, a.size, a.batch, a.threads, a.seconds, a.binary)
            pairs.append((report["images_per_second"], torchvision))
    ratios = [mine / other for mine, other in pairs]
    print(json.dumps({
        "size": a.size, "threads": a.threads, "images_per_second": round(statistics.median(p[0] for p in pairs), 1),
        "torchvision": round(statistics.median(p[1] for p in pairs), 1), "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)], "microseconds": report["microseconds"],
    }))


if __name__ == "__main__":
    main()
