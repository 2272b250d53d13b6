#!/usr/bin/env python3
"""Compares decoding and augmentation with PIL and torchvision, operation by operation, on real images.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install pillow torchvision scipy
    cargo build --release --example reference
    /tmp/reference/bin/python tests/reference/check.py FOLDER [--images 200]

FOLDER holds images at any depth; they are taken in even strides. Each line of the table is one operation with fixed parameters:
the worst difference, the mean difference (in 255ths) and the share of images that are the same to the bit. The files made
up here (grey, CMYK, palettes, 16 bits, truncated and so on) are written to a temporary folder. Last come the distributions of
what is drawn, each with a two-sample Kolmogorov-Smirnov or chi-squared test. Exit code 1 where a bar is missed.
"""
import argparse, json, pathlib, random, struct, subprocess, sys, tempfile

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode, functional as F, v2

BARS = {"decode": (0, 0), "resize": (1, 0.1), "colour": (1, 1), "blur": (2, 1), "view": (2, 1), "RandAugment": (0, 0)}
JITTER = {"Brightness": (0.6, 1.4), "Contrast": (0.6, 1.4), "Saturation": (0.8, 1.2), "Hue": (-0.1, 0.1)}
STEPS = {"Brightness": F.adjust_brightness, "Contrast": F.adjust_contrast, "Saturation": F.adjust_saturation, "Hue": F.adjust_hue}
RAND_AUGMENT = v2.RandAugment()
FILTERS = {"Bilinear": InterpolationMode.BILINEAR, "Bicubic": InterpolationMode.BICUBIC}


class Ours:
    """The example `reference`, asked line by line."""

    def __init__(self, binary):
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, **order):
        self.process.stdin.write((json.dumps(order) + "\n").encode())
        self.process.stdin.flush()

    def picture(self, **order):
        self.ask(**order)
        width, height = struct.unpack("<II", self.process.stdout.read(8))
        return np.frombuffer(self.process.stdout.read(width * height * 3), np.uint8).reshape(height, width, 3)

    def draw(self, **order):
        self.ask(**order)
        return json.loads(self.process.stdout.readline())


def jitter(image, changes):
    for change in changes:
        for name, factor in change.items():
            image = STEPS[name](image, factor)
    return image


def rand_augment(image, changes):
    for change in changes:
        name, magnitude = (change, 0.0) if isinstance(change, str) else next(iter(change.items()))
        image = RAND_AUGMENT._apply_image_or_video_transform(image, name, magnitude, InterpolationMode.NEAREST, RAND_AUGMENT._fill)
    return image


OPERATIONS = {
    "Jitter": jitter,
    "Grey": lambda image, _: F.rgb_to_grayscale(image, num_output_channels=3),
    "Blur": lambda image, sigma: image.filter(ImageFilter.GaussianBlur(radius=sigma)),
    "Solarize": ImageOps.solarize,
    "Flip": lambda image, _: F.hflip(image),
    "RandAugment": rand_augment,
}


def view(image, v):
    """torchvision's operations on a PIL image, in the order of the view."""
    cut = v["cut"]
    image = F.resized_crop(image, **cut["region"], size=[cut["size"]] * 2, interpolation=InterpolationMode.BILINEAR)
    for step in v["steps"]:
        for name, drawn in step.items():
            image = OPERATIONS[name](image, drawn)
    return image


def plain(size, crop, *steps):
    region = dict(zip(("left", "top", "width", "height"), crop))
    return {"cut": {"size": size, "region": region}, "steps": list(steps)}


def changes(rng, side):
    """A change of RandAugment of every kind, with a magnitude that it may have."""
    signed = lambda end: rng.choice((-1, 1)) * float(np.float32(end * rng.randint(0, 30) / 30))
    ends = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331 * side, "TranslateY": 150 / 331 * side, "Rotate": 30}
    ends |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9)
    drawn = [{name: signed(end)} for name, end in ends.items()]
    return drawn + [{"Posterize": rng.randint(4, 8)}, {"Solarize": abs(signed(1))}, "Identity", "AutoContrast", "Equalize"]


def operations(image, rng, sizes=(32, 96, 224)):
    """(bar, name, order, PIL's picture) of every operation. Colour and blur act on the largest central square."""
    width, height = image.size
    side = min(width, height)
    square = [(width - side) // 2, (height - side) // 2, side, side]
    yield "decode", "decode", {}, image
    for name, mode in FILTERS.items():
        for resize, crop in [(side * 3 // 2, side), (max(side // 2, 8), max(side // 3, 8)), (sizes[0], sizes[0] * 7 // 8)]:
            centre = T.CenterCrop(crop)(F.resize(image, resize, mode, antialias=True))
            yield "resize", f"centre {name}", {"centre": {"resize": resize, "crop": crop, "filter": name}}, centre
    for size in sizes:
        w, h = rng.randint(1, width), rng.randint(1, height)
        v = plain(size, [rng.randint(0, width - w), rng.randint(0, height - h), w, h], *[{"Flip": None}] * (rng.random() < 0.5))
        yield "resize", f"crop {size}", {"view": v}, view(image, v)
    for name, low, high in [("Brightness", 0, 2), ("Contrast", 0, 2), ("Saturation", 0, 2), ("Hue", -0.5, 0.5)]:
        v = plain(side, square, {"Jitter": [{name: rng.uniform(low, high)}]})
        yield "colour", name.lower(), {"view": v}, view(image, v)
    steps = [{name: rng.uniform(low, high)} for name, (low, high) in JITTER.items()]
    rng.shuffle(steps)
    for name, step in [("jitter", {"Jitter": steps}), ("grey", {"Grey": None}), ("solarize", {"Solarize": 128})]:
        v = plain(side, square, step)
        yield "colour", name, {"view": v}, view(image, v)
    for name, sigma in [("blur 0.1-2", rng.uniform(0.1, 2.0)), ("blur 2-9", rng.uniform(2, 9))]:
        v = plain(side, square, {"Blur": sigma})
        yield "blur", name, {"view": v}, view(image, v)
    sometimes = lambda step: [step] * (rng.random() < 0.2)
    several = [*sometimes({"Grey": None}), {"Blur": rng.uniform(0.1, 2)}, *sometimes({"Solarize": 128}), {"Flip": None}]
    v = plain(sizes[1], square, {"Jitter": steps}, *several)
    yield "view", "whole view", {"view": v}, view(image, v)
    for change in changes(rng, side):
        v = plain(side, square, {"RandAugment": [change]})
        yield "RandAugment", change if isinstance(change, str) else next(iter(change)), {"view": v}, view(image, v)
    # Colours and a flip wait for one another; what moves pixels does not.
    v = plain(sizes[1], square, {"Flip": None}, {"Grey": None}, {"RandAugment": rng.sample(changes(rng, sizes[1]), 4)}, {"Flip": None})
    yield "RandAugment", "several", {"view": v}, view(image, v)


def compare(ours, files, rng):
    table = {}
    for file in files:
        image = Image.open(file).convert("RGB")
        for bar, name, order, expected in operations(image, rng):
            got, expected = ours.picture(file=str(file), **order), np.asarray(expected)
            assert got.shape == expected.shape, (file, name, got.shape, expected.shape)
            difference = np.abs(got.astype(int) - expected.astype(int))
            table.setdefault((bar, name), []).append((int(difference.max()), float(difference.mean())))
    ok = True
    print(f"{'operation':<18}{'images':>7}{'max':>5}{'mean':>9}{'identical':>11}")
    for (bar, name), rows in table.items():
        worst, mean = max(r[0] for r in rows), max(r[1] for r in rows)
        good = worst <= BARS[bar][0] and mean <= BARS[bar][1]
        ok &= good
        print(f"{name:<18}{len(rows):>7}{worst:>5}{mean:>9.4f}{sum(r[0] == 0 for r in rows) / len(rows):>11.1%}{'' if good else '  MISSED'}")
    return ok


def made_up(folder, sample, size=(61, 47)):
    """Files of every kind that a data set may hold, made from one real image."""
    image = Image.open(sample).convert("RGB").resize(size)
    grey = image.convert("L")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 65536, size[::-1], dtype=np.uint16))
    alpha = image.copy()
    alpha.putalpha(grey)
    save = lambda name, im, **o: (im.save(folder / name, **o), folder / name)[1]
    for subsampling in range(3):
        yield save(f"subsampling{subsampling}.jpg", image, quality=85, subsampling=subsampling)
        yield save(f"progressive{subsampling}.jpg", image, quality=85, subsampling=subsampling, progressive=True)
    yield save("grey.jpg", grey)
    yield save("cmyk.jpg", image.convert("CMYK"))
    yield save("cmyk90.jpg", image.convert("CMYK"), quality=90, subsampling=0)
    yield save("quality1.jpg", image, quality=1)
    yield save("optimized.jpg", image, optimize=True)
    yield save("restart.jpg", image, restart_marker_blocks=2)
    yield save("rgb.jpg", image, keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield save("orientation.jpg", image, exif=exif)
    yield save("tiny.jpg", image.resize((1, 1)))
    for mode in ("RGB", "L", "1", "P", "RGBA", "LA"):
        source = alpha if mode in ("RGBA", "LA") else image
        yield save(f"{mode}.png", source.convert(mode))
    yield save("transparent.png", image.convert("P"), transparency=3)
    yield save("bits4.png", grey.quantize(16), bits=4)
    yield save("16.png", noise)
    for mode in ("RGB", "L", "1", "P"):
        yield save(f"{mode}.bmp", image.convert(mode))
    yield save("RGBA.bmp", alpha)
    yield save("palette.gif", image)
    yield save("grey.gif", grey)
    yield save("interlaced.gif", image.convert("P"), interlace=1)
    yield save("transparent.gif", image.convert("P"), transparency=3)
    yield save("animated.gif", image, save_all=True, append_images=[image.rotate(90), grey])
    yield save("lossless.webp", image, lossless=True)
    yield save("alpha.webp", alpha, lossless=True)
    yield save("lossy.webp", image, quality=80)
    yield save("RGB.ppm", image)
    yield save("L.pgm", grey)
    (folder / "named.jpg").write_bytes((folder / "RGB.png").read_bytes())
    yield folder / "named.jpg"
    whole = (folder / "subsampling2.jpg").read_bytes()
    scans = (folder / "progressive2.jpg").read_bytes()
    damaged = {
        "half.jpg": whole[: len(whole) // 2], "no-end.jpg": whole[:-2], "last-byte.jpg": whole[:-1], "header.jpg": whole[:200],
        "few-scans.jpg": scans[: len(scans) // 2], "trailing.jpg": whole + b"more", "stray.jpg": whole[:-2] + b"\0\0\0\xff\xd9",
        "empty.jpg": b"", "text.jpg": b"this is no image", "half.png": (folder / "RGB.png").read_bytes()[:3000],
    }
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
        yield folder / name


def compare_kinds(ours, sample):
    ok = True
    print(f"\n{'file':<22}{'PIL':<30}ours")
    with tempfile.TemporaryDirectory() as folder:
        for file in made_up(pathlib.Path(folder), sample):
            got = ours.picture(file=str(file))
            try:
                expected = np.asarray(Image.open(file).convert("RGB"))
            except Exception as error:
                good, verdict = got.size == 0, "refused" if got.size == 0 else "READ"
                print(f"{file.name:<22}{'refused: ' + str(error)[:20]:<30}{verdict}")
            else:
                same = got.shape == expected.shape and np.array_equal(got, expected)
                difference = np.abs(got.astype(int) - expected.astype(int)).max() if got.shape == expected.shape else None
                # Two decoders of lossy WebP need not agree to the bit: the format's upsampling is not normative.
                good = same or (file.name == "lossy.webp" and difference is not None and difference <= 4)
                verdict = "identical" if same else "REFUSED" if got.size == 0 else f"differs by {difference}"
                print(f"{file.name:<22}{'read':<30}{verdict}")
            ok &= bool(good)
    return ok


def distributions(ours, count=20000):
    """What is drawn, beside what torchvision draws."""
    torch.manual_seed(0)
    ok = True
    print(f"\n{'drawn':<34}{'p':>8}")

    def test(name, p):
        nonlocal ok
        ok &= p > 1e-4
        print(f"{name:<34}{p:>8.4f}{'' if p > 1e-4 else '  DIFFERS'}")

    for width, height, scale in [(500, 375, (0.2, 1.0)), (32, 32, (0.2, 1.0)), (300, 40, (0.08, 1.0))]:
        strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
        order = [{"Crop": {"size": 32, "scale": scale}}, {"Jitter": {**strengths, "p": 0.8}}, {"Grey": {"p": 0.2}},
                 {"Blur": {"p": 0.1}}, {"Solarize": {"p": 0.2}}, {"Flip": {"p": 0.5}}, {"RandAugment": {}}]
        drawn = ours.draw(draw=order, width=width, height=height, count=count)
        blank = torch.empty(3, height, width)
        theirs = [T.RandomResizedCrop.get_params(blank, scale, (3 / 4, 4 / 3)) for _ in range(count)]
        crops = np.array([[d["cut"]["region"][name] for name in ("top", "left", "height", "width")] for d in drawn])
        for i, name in enumerate(("top", "left", "height", "width")):
            test(f"crop {name}, {width}x{height}", stats.ks_2samp(crops[:, i], np.array(theirs)[:, i]).pvalue)
    of = lambda name: [step[name] for d in drawn for step in d["steps"] if name in step]
    for name, p in [("Jitter", 0.8), ("Grey", 0.2), ("Blur", 0.1), ("Solarize", 0.2), ("Flip", 0.5)]:
        test(f"{name} p {p}", stats.binomtest(len(of(name)), count, p).pvalue)
    test("sigma", stats.kstest(of("Blur"), stats.uniform(0.1, 1.9).cdf).pvalue)
    jittered = of("Jitter")
    for name, (low, high) in JITTER.items():
        factors = [step[name] for steps in jittered for step in steps if name in step]
        test(name, stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue)
    orders = {}
    for steps in jittered:
        key = tuple(name for step in steps for name in step)
        orders[key] = orders.get(key, 0) + 1
    test(f"order of the jitter ({len(orders)} of 24)", stats.chisquare(list(orders.values())).pvalue if len(orders) == 24 else 0)
    ok &= rand_augment_draws(ours, of("RandAugment"), test)
    return ok


def rand_augment_draws(ours, drawn, test):
    """The kinds of changes and their signs are drawn as torchvision draws them; magnitudes are its own."""
    kinds = list(RAND_AUGMENT._AUGMENTATION_SPACE)
    name_of = lambda change: change if isinstance(change, str) else next(iter(change))
    for place in range(2):
        counts = [sum(name_of(changes[place]) == kind for changes in drawn) for kind in kinds]
        test(f"change {place + 1} of RandAugment", stats.chisquare(counts).pvalue)
    pairs = [kinds.index(name_of(first)) * 14 + kinds.index(name_of(second)) for first, second in drawn]
    test("pairs of changes", stats.chisquare(np.bincount(pairs, minlength=196)).pvalue)
    for kind, (magnitudes, signed) in RAND_AUGMENT._AUGMENTATION_SPACE.items():
        if signed:
            values = [change[kind] for changes in drawn for change in changes if name_of(change) == kind]
            test(f"sign of {kind}", stats.binomtest(sum(value > 0 for value in values), len(values), 0.5).pvalue)
    ok, worst = True, 0.0
    for magnitude, bins, side in [(m, bins, side) for bins, side in [(31, 32), (11, 224)] for m in range(bins)]:
        order = [{"Crop": {"size": side, "scale": (0.2, 1)}}, {"RandAugment": {"n": 16, "magnitude": magnitude, "bins": bins}}]
        for view in ours.draw(draw=order, width=64, height=64, count=8):
            for change in view["steps"][0]["RandAugment"]:
                if not isinstance(change, str):
                    (kind, value), = change.items()
                    expected = float(RAND_AUGMENT._AUGMENTATION_SPACE[kind][0](bins, side, side)[magnitude])
                    difference = abs(abs(value) - expected) / max(1.0, expected)
                    # The last bit of torch.linspace depends on the processor's vectors.
                    worst, ok = max(worst, difference), ok and difference < 1e-6
    print(f"magnitudes of RandAugment differ by at most {worst:.1e}{'' if ok else '  DIFFERS'}")
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--binary", default="target/release/examples/reference")
    arguments = parser.parse_args()
    found = sorted(p for p in arguments.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        sys.exit(f"no images below {arguments.folder}")
    files = found[:: max(len(found) // arguments.images, 1)][: arguments.images]
    ours = Ours(arguments.binary)
    results = [compare(ours, files, random.Random(0)), compare_kinds(ours, files[0]), distributions(ours)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
