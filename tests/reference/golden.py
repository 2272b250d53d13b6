#!/usr/bin/env python3
"""Writes tests/reference/golden.json: made-up small images and what PIL and torchvision make of them, to the bit.

    /tmp/reference/bin/python tests/reference/golden.py        # see check.py for the environment

Each case: `file` (its bytes, hexadecimal), `order` (as the example `reference` takes it, without the file), `size` and `rgb` of the
result, or no `rgb` where PIL refuses the file. tests/integration/pixels.rs reads it.
"""
import io, json, pathlib, random, tempfile

import numpy as np
from PIL import Image

from check import made_up, operations


def picture(width, height):
    """A smooth gradient with hard edges and some noise: every operation has something to do."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(1).integers(0, 40, (height, width, 3))
    smooth = np.stack([x * 215 // width, y * 215 // height, (x + y) * 215 // (width + height)], axis=-1)
    smooth[(x // 3 + y // 4) % 3 == 0] = [200, 30, 90]
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def case(name, content, order, image):
    entry = {"name": name, "file": content.hex(), "order": order}
    if image is not None:
        entry |= {"size": image.size, "rgb": np.asarray(image).tobytes().hex()}
    return entry


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main():
    cases = []
    for width, height in [(23, 17), (12, 19)]:
        image = picture(width, height)
        for _, name, order, expected in operations(image, random.Random(width), sizes=(8, 20)):
            cases.append(case(f"{name} of {width} x {height}", png(image), order, expected))
    with tempfile.TemporaryDirectory() as folder:
        sample = pathlib.Path(folder) / "sample.png"
        picture(23, 17).save(sample)
        for file in made_up(pathlib.Path(folder), sample, (23, 17)):
            # Not to the bit: lossy WebP (its upsampling is not normative) and what depends on the version of PIL.
            if file.name in ("lossy.webp",):
                continue
            try:
                image = Image.open(file).convert("RGB")
            except Exception:
                image = None
            cases.append(case(file.name, file.read_bytes(), {}, image))
    lines = ",\n".join(json.dumps(c) for c in cases)
    (pathlib.Path(__file__).parent / "golden.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
