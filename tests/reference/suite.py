#!/usr/bin/env python3
"""Compares the pixels of every image in a folder with Pillow's, such as those of Pillow's own tests and of PngSuite.

    git clone --depth 1 https://github.com/python-pillow/Pillow /tmp/pillow
    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install pillow==13.0.0
    /tmp/reference/bin/python tests/reference/suite.py /tmp/pillow/Tests/images [FOLDER …] [--caco target/release/caco]

Each file that Pillow or caco reads is decoded by both: `Image.open(file).convert("RGB")` and `caco data pixels FILE`. Files that are
equal are counted, those that differ are listed, and so are those that one of the two refuses, with its reason. Exit code 1 where
pixels differ. A folder that does not exist is skipped.
"""
import argparse, collections, concurrent.futures, hashlib, os, pathlib, re, subprocess, warnings

from PIL import Image, __version__

NOT_IMAGES = (".py", ".md", ".txt", ".pyc")


def theirs(file):
    """Size and digest by Pillow, or its reason; and the name of the format."""
    kind = "unknown"
    try:
        with Image.open(file) as image:
            kind = f"{image.format} {image.mode}"
            rgb = image.convert("RGB")
            return (rgb.size, hashlib.sha256(rgb.tobytes()).hexdigest()), None, kind
    except Exception as error:
        return None, f"{type(error).__name__}: {error}", kind


def ours(caco, file):
    done = subprocess.run([caco, "data", "pixels", file], capture_output=True, text=True)
    if found := re.fullmatch(r"(\d+) x (\d+)  RGB  sha256 ([0-9a-f]{64})\n", done.stdout):
        return ((int(found[1]), int(found[2])), found[3]), None
    return None, done.stderr.partition(f"{file}: ")[2].partition("\n")[0] or done.stderr.strip()


def compare(caco, folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_IMAGES)
    found = collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda file: ours(caco, file), files)
        for file, (mine, refused) in zip(files, answers):
            reference, reason, kind = theirs(file)
            name = f"{file.relative_to(folder)} ({kind})"
            if mine and reference:
                found["equal" if mine == reference else "differ"].append(name)
            elif mine:
                found["read by caco alone"].append(f"{name}: {reason}")
            elif reference:
                found["refused by caco alone"].append(f"{name}: {refused}")
            else:
                found["refused by both"].append(f"{name}: {refused} | {reason}")
    print(f"{folder}: {len(files)} files, Pillow {__version__}")
    for outcome in ("equal", "differ", "read by caco alone", "refused by caco alone", "refused by both"):
        print(f"  {outcome}: {len(found[outcome])}")
        for name in found[outcome] if outcome != "equal" else ():
            print(f"    {name}")
    refused = collections.Counter(re.search(r"\((\S+)", name)[1].rstrip(")") for name in found["refused by caco alone"])
    print("  refused by caco alone, by format:", ", ".join(f"{kind} {count}" for kind, count in refused.most_common()) or "none")
    return len(found["differ"])


warnings.simplefilter("ignore")
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("folders", nargs="+", type=pathlib.Path)
arguments.add_argument("--caco", default="target/release/caco")
options = arguments.parse_args()
differ = 0
for folder in options.folders:
    if folder.is_dir():
        differ += compare(options.caco, folder)
    else:
        print(f"{folder}: skipped, there is no such folder")
raise SystemExit(differ > 0)
