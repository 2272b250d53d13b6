#!/usr/bin/env python3
"""Writes variants.json: small files in rare variants of BMP, GIF, JPEG, PNG, PNM and WebP, with the pixels that Pillow reads from
them ("rgb", in hexadecimal), or none if it refuses them. Needs Pillow and NumPy. `src/data/decode.rs` reads it.
"""
import io, json, pathlib, struct, zlib
import numpy as np
from PIL import Image, __version__

rng = np.random.default_rng(0)
draw = lambda most, shape: rng.integers(0, most + 1, shape)
bytes_of = lambda count: bytes(draw(255, count).astype("uint8"))
long = lambda *numbers: struct.pack(f"<{len(numbers)}I", *numbers)
FILES = {}


# ---- BMP
def bmp(bits, data, compression=0, header=40, palette=b"", colours=0, masks=b"", height=7, width=9):
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
        info += masks[: header - 40].ljust(header - 40, b"\0") if header > 40 else masks
    start = 14 + len(info + palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


WIDE = (np.arange(10 * 7, dtype="<u2") * 937).tobytes()
PALETTE = b"".join(bytes_of(3) + b"\0" for _ in range(256))
M565, M555 = (0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)
FILES |= {
    "bmp: 16 bits": bmp(16, WIDE),
    "bmp: 565": bmp(16, WIDE, 3, masks=long(*M565)),
    "bmp: 565, version 4": bmp(16, WIDE, 3, 108, masks=long(*M565, 0)),
    "bmp: 555, version 5": bmp(16, WIDE, 3, 124, masks=long(*M555, 0)),
    "bmp: 1555": bmp(16, WIDE, 3, 56, masks=long(*M555, 0x8000)),
    "bmp: 16 bits, top down": bmp(16, WIDE, height=-7),
    "bmp: 32 bits": bmp(32, bytes_of(9 * 7 * 4)),
    "bmp: OS/2 1, 1 bit": bmp(1, bytes_of(4 * 7), header=12, palette=bytes_of(6)),
    "bmp: OS/2 1, 16 bits": bmp(16, WIDE, header=12),
    "bmp: OS/2 1, 24 bits": bmp(24, bytes_of(28 * 7), header=12),
    "bmp: OS/2 1, 32 bits": bmp(32, bytes_of(9 * 7 * 4), header=12),
    "bmp: OS/2 2, 8 bits": bmp(8, bytes_of(12 * 7), header=64, palette=PALETTE),
    "bmp: OS/2 2, 24 bits": bmp(24, bytes_of(28 * 7), header=64),
}
line = lambda y: bytes([4, y + 1, 0, 3, 1, 2, 3, 0, 2, 99 - y, 0, 0])
rle8 = lambda codes, **more: bmp(8, codes, 1, palette=PALETTE, colours=256, **more)
rle4 = lambda codes: bmp(4, codes, 2, palette=PALETTE[:64], colours=16)
END = b"\0\1"
FILES |= {
    "rle8: runs and lists": rle8(b"".join(map(line, range(7))) + END),
    "rle8: OS/2 2": rle8(b"".join(map(line, range(7))) + END, header=64),
    "rle8: lines that are short": rle8(b"".join(bytes([5, y + 1, 0, 0]) for y in range(7)) + END),
    "rle8: lines that are long": rle8(b"".join(bytes([20, y + 1, 0, 0]) for y in range(7)) + END),
    "rle8: skips": rle8(bytes([2, 9, 0, 2, 3, 1, 3, 8, 0, 2, 1, 2, 4, 7, 0, 0]) + bytes([9, 6, 0, 0] * 2) + b"\0\2\0\1" + END),
    "rle8: no end": rle8(b"".join(bytes([9, y, 0, 0]) for y in range(7))),
    "rle8: ends early": rle8(bytes([9, 5, 0, 0, 4, 4]) + END),
    "rle4: runs": rle4(b"".join(bytes([5, y * 7, 4, 0x3A, 0, 0]) for y in range(7)) + END),
    "rle4: lists": rle4(b"".join(bytes([0, 5, 0x12, 0x34, 0x50, 0, 4, y, 0, 0]) for y in range(7)) + END),
    "rle4: lines that are short": rle4(b"".join(bytes([3, y * 9, 0, 0]) for y in range(7)) + END),
}

# ---- PNM
for most in (1, 2, 10, 100, 200, 254, 255, 256, 1000, 32767, 65534, 65535):
    kind = "uint8" if most < 256 else ">u2"
    FILES[f"pnm: grey to {most}"] = b"P5 5 4 %d\n" % most + draw(most, 20).astype(kind).tobytes()
    FILES[f"pnm: colour to {most}"] = b"P6 5 4 %d\n" % most + draw(most, 60).astype(kind).tobytes()
    FILES[f"pnm: grey to {most} as text"] = b"P2\n# x\n5 4\n%d\n" % most + b" ".join(b"%d" % v for v in draw(most, 20))
    FILES[f"pnm: colour to {most} as text"] = b"P3 5 4 %d\n" % most + b"\n".join(b"%d" % v for v in draw(most, 60)) + b"\n"
FILES |= {
    "pnm: grey beyond the largest": b"P5 5 4 100\n" + bytes_of(20),
    "pnm: colour beyond the largest": b"P6 5 4 1000\n" + bytes_of(120),
    "pnm: comments": b"P2 4 2 #c\n7 1 2 3 # x 7 7\n4 5 6 7 0\n",
    "pnm: comments among bytes": b"P5\n#a\n4 #b\n2\n#c\n9\n" + bytes(range(8)),
    "pnm: text beyond the largest": b"P2 2 1 7 1 9\n",
    "pnm: truncated": b"P5 5 4 100\n" + bytes_of(19),
    "pnm: truncated text": b"P3 5 4 100\n1 2 3",
    "pnm: bits": b"P4 12 2\n\xa5\xf0\x0f\x10",
    "pnm: bits as text": b"P1 8 2 10101010\n1 1 1 1 0 0 0 0\n",
}


# ---- GIF
def gif(canvas, place, own=None, transparent=None, shared=True, background=0):
    x, y, width, height = place
    image = Image.fromarray(draw(3, (height, width)).astype("uint8"), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    out = io.BytesIO()
    image.save(out, "GIF", optimize=False)
    data = out.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1)
    palette = data[13:at]
    while data[at] != 0x2C:
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    head = b"GIF89a" + struct.pack("<HH", *canvas) + bytes([data[10] if shared else data[10] & 0x7F, background, 0])
    control = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    frame = b"," + struct.pack("<HHHH", *place) + bytes([0 if own is None else 0x81]) + bytes(own or [])
    return head + (palette if shared else b"") + control + frame + data[at + 10 :]


OWN = range(1, 13)
FILES |= {
    "gif: the frame is the canvas": gif((9, 9), (0, 0, 9, 9), transparent=0),
    "gif: a corner": gif((9, 9), (0, 0, 5, 5)),
    "gif: the middle": gif((9, 9), (2, 3, 5, 5), background=2),
    "gif: rows": gif((9, 9), (0, 3, 9, 2)),
    "gif: a transparent colour": gif((9, 9), (2, 3, 5, 5), transparent=2),
    "gif: a transparent colour that is none": gif((9, 9), (2, 3, 5, 5), transparent=200),
    "gif: a palette of its own": gif((9, 9), (2, 3, 5, 5), OWN),
    "gif: a transparent colour of its own": gif((9, 9), (2, 3, 5, 5), OWN, 3, background=1),
    "gif: no shared palette": gif((9, 9), (2, 3, 5, 5), OWN, shared=False),
    "gif: beyond the canvas": gif((9, 9), (6, 7, 5, 5)),
    "gif: no canvas": gif((0, 0), (0, 0, 5, 5)),
}

# ---- WebP
chunk = lambda kind, data: kind + long(len(data)) + data + b"\0" * (len(data) % 2)
three = lambda number: long(number)[:3]


def webp(place, lossless, alpha, background, blended, frames=1):
    x, y, width, height = place
    image = Image.fromarray(draw(255, (height, width, 4 if alpha else 3)).astype("uint8"))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=lossless, exact=True, quality=80)
    data = out.getvalue()[12:]
    data = data[18:] if data.startswith(b"VP8X") else data
    head = chunk(b"VP8X", bytes([0x12 if alpha else 2, 0, 0, 0]) + three(8) + three(8))
    frame = three(x // 2) + three(y // 2) + three(width - 1) + three(height - 1) + three(99) + bytes([0 if blended else 2])
    body = b"WEBP" + head + chunk(b"ANIM", bytes(background) + b"\0\0") + chunk(b"ANMF", frame + data) * frames
    return b"RIFF" + long(len(body)) + body


for lossless in (False, True):
    for alpha in (False, True):
        for name, place in (("whole", (0, 0, 9, 9)), ("small", (4, 2, 5, 5))):
            kind = f"{'lossless' if lossless else 'lossy'}{', alpha' if alpha else ''}, {name}"
            FILES[f"webp: {kind}, blended"] = webp(place, lossless, alpha, (10, 20, 30, 255), True)
            FILES[f"webp: {kind}"] = webp(place, lossless, alpha, (0, 0, 0, 0), False, 2)

# ---- PNG
SIGNATURE = b"\x89PNG\r\n\x1a\n"
part = lambda kind, data, crc=None: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc or zlib.crc32(kind + data))
head = part(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 0))
packed = zlib.compress(b"".join(b"\0" + bytes_of(15) for _ in range(4)))
FILES |= {
    "png: right": SIGNATURE + head + part(b"IDAT", packed) + part(b"IEND", b""),
    "png: wrong checksum": SIGNATURE + head + part(b"IDAT", packed, 7) + part(b"IEND", b""),
    "png: wrong checksum of a part": SIGNATURE + head + part(b"IDAT", packed[:30]) + part(b"IDAT", packed[30:], 7) + part(b"IEND", b""),
    "png: wrong checksum of the header": SIGNATURE + head[:-4] + b"1234" + part(b"IDAT", packed) + part(b"IEND", b""),
    "png: no end": SIGNATURE + head + part(b"IDAT", packed),
    "png: a part is missing": SIGNATURE + head + part(b"IDAT", packed[:30]),
    "png: truncated": SIGNATURE + head + part(b"IDAT", packed)[:-20],
}
grey = lambda *more: SIGNATURE + part(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 0, 0, 0, 0)) + b"".join(more)
wide = part(b"IDAT", zlib.compress(b"".join(b"\0" + draw(600, 5).astype(">u2").tobytes() for _ in range(4)))) + part(b"IEND", b"")
FILES |= {"png: 16 bits grey": grey(wide), "png: 16 bits grey, one transparent": grey(part(b"tRNS", struct.pack(">H", 255)), wide)}

# ---- Wrong headers
pixels = bytes_of(12 * 7)
several, early = (bytearray(bmp(8, pixels, palette=PALETTE[:colours * 4], colours=colours)) for colours in (256, 252))
several[26:28] = b"\7\0"
early[10:14] = long(54)
few = bytearray(bmp(4, pixels[:56], palette=PALETTE[:64]))
few[10:14] = long(54)
core = bytearray(bmp(8, pixels, header=12, palette=bytes_of(768)))
core[10:14], core[22:24] = long(26), b"\0\0"
FILES |= {
    "bmp: seven planes": bytes(several),
    "bmp: pixels that start where the palette does": bytes(early),
    "bmp: pixels of 4 bits that start where the palette does": bytes(few),
    "bmp: OS/2 1, no planes, pixels that start where the palette does": bytes(core),
    "bmp: an incomplete last row": bmp(8, pixels[:-3], palette=PALETTE),
    "bmp: an incomplete last row, OS/2 2": bmp(24, (pixels * 3)[: 28 * 7 - 1], header=64),
    "bmp: a last row that lacks a pixel": bmp(8, pixels[:-4], palette=PALETTE),
    "gif: no palette": gif((5, 5), (0, 0, 5, 5), shared=False),
    "gif: no palette, the middle": gif((9, 9), (2, 3, 5, 5), shared=False),
    "gif: no palette, a transparent colour": gif((9, 9), (2, 3, 5, 5), transparent=200, shared=False),
}


# ---- JPEG
def steep(mode, step, **options):
    """Quantization steps so large that numbers of 16 bits overflow in the inverse DCT, as where a file is damaged."""
    channels = () if mode == "L" else (3,)
    image = Image.fromarray(draw(255, (20, 20, *channels)).astype("uint8"), mode)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, **options)
    data = bytearray(out.getvalue())
    at = 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDB:
            for table in range(at + 4, at + 2 + length, 65):
                data[table + 1 : table + 65] = bytes([step]) * 64
        at += 2 + length
    return bytes(data)


for step in (1, 40, 255):
    FILES[f"jpeg: grey, steps of {step}"] = steep("L", step)
    FILES[f"jpeg: colour, steps of {step}"] = steep("RGB", step)
    FILES[f"jpeg: progressive, steps of {step}"] = steep("RGB", step, progressive=True)

cases = []
for name, file in FILES.items():
    case = {"name": name, "file": file.hex()}
    try:
        image = Image.open(io.BytesIO(file)).convert("RGB")
        case |= {"size": image.size, "rgb": image.tobytes().hex()}
    except (OSError, SyntaxError, ValueError):
        pass
    cases.append(case)
lines = ",\n".join(json.dumps(case) for case in cases)
pathlib.Path(__file__).with_name("variants.json").write_text(f"[\n{lines}\n]\n")
print(len(cases), "files, read by Pillow", __version__)
