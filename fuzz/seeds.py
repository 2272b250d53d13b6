"""Writes valid files as seeds for the fuzz targets. Uses only the standard library; images are as small as possible."""

import base64, gzip, io, json, pathlib, tarfile, zipfile, zlib

ROOT = pathlib.Path(__file__).parent
CORPUS = ROOT / "corpus"
BREAK = b"\n====\n"
MATS = {path.stem: path.read_bytes() for path in (ROOT.parent / "tests/formats").glob("*.mat")}
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////////////"
    "wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
)


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", (2).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    + chunk(b"IDAT", zlib.compress(b"\0abcdef" * 2))
    + chunk(b"IEND", b"")
)
BMP = b"BM:\0\0\0\0\0\0\0006\0\0\0(\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0" + bytes(16) + b"abc\0"
WEBP = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def annotations(choice, *files):
    return bytes([choice]) + BREAK.join(files)


def packed(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


OPERATIONS = "Jitter(brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1, p: 1.0), Grey(p: 0.5), Blur(p: 1.0), Solarize(p: 0.5), RandAugment(n: 9)"
VIEWS = ["SingleCrop(size: 16)", f"Custom([[Crop(size: 8, scale: (0.4, 1.0)), {OPERATIONS}, Flip(p: 0.5)], [Crop(size: 8, scale: (0.4, 1.0))]])"]
FILES = [("a/1.txt", b"one" * 99), ("a/b/2.txt", b"two")]
base = "ILSVRC2012_devkit_t12/data/"
devkit = gzip.compress(tar([(base + "meta.mat", MATS["meta"]), (base + "ILSVRC2012_validation_ground_truth.txt", b"1\n2\n")]), mtime=0)
synset = tar([("n01440764_1.JPEG", JPEG)])
image = {"path": "a/1.jpg", "label": 0, "size": [3, 2], "bytes": 9, "blake3": "00"}
within = {**image, "path": "b", "within": {"file": "x.bin", "offset": 1, "bytes": 3072, "planes": [32, 32]}}
lines = [{"format": 1, "classes": ["a", "b"], "images": 2}, image, within, {"path": "c", "unreadable": "cut"}]
SEEDS = {
    "mat": MATS,
    "annotations": {
        "food": annotations(0, b'{"a": ["a/1"]}', b'{"a": []}'),
        "sun": annotations(1, b"/a/x\n/b/y/z\n", b"/a/x/1.jpg\n", b"/b/y/z/2.jpg\n", b""),
        "aircraft": annotations(2, b"A 3\nF/A-18\n", b"1 A 3\n2 F/A-18\n"),
        "dtd": annotations(3, b"a/1.jpg\n", b"b/2.jpg\n", b"a/3.jpg\n"),
        "pets": annotations(4, b"#x\na_1 1 1 1\nb_2 2 1 1\n", b"a_3 1 1 1\n"),
        "cars": annotations(5, MATS["cars_meta"], MATS["cars_annos"], b""),
        "flowers": annotations(6, MATS["imagelabels"], MATS["setid"], b""),
        "cifar10": annotations(7, b"a\nb\n", b"\x01" + bytes(3072)),
        "cifar100": annotations(8, b"a\nb\n", b"\x01\x01" + bytes(3072)),
        "voc": annotations(9, *[b"1 1\n2 0\n3 -1\n"] * 20),
    },
    "shards": {"a": tar([("1.jpg", JPEG), ("1.cls", b"0"), ("d/2.png", PNG), ("d/2.cls", b"1")])},
    "imagenet": {"a": BREAK.join([tar([("n01440764.tar", synset)]), tar([("1.JPEG", JPEG), ("2.JPEG", PNG)]), devkit])},
    "decode": {"jpeg": JPEG, "png": PNG, "bmp": BMP, "webp": WEBP, "pgm": b"P5 2 1 255 ab", "ppm": b"P3\n1 1\n255\n1 2 3\n"},
    "index": {"a": "\n".join(map(json.dumps, lines)).encode() + b"\n"},
    "unpack": {"tar": b"\0" + tar(FILES), "gz": b"\1" + gzip.compress(tar(FILES)), "zip": b"\2" + packed(FILES)},
    "views": {str(number): b"\x20\x20\x07" + text.encode() for number, text in enumerate(VIEWS)},
    "pipeline": {path.stem: path.read_bytes() for path in (ROOT.parent / "pipelines").rglob("*.ron")},
}
for target, files in SEEDS.items():
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
