"""Tensors in safetensors files."""

import json
import struct
from pathlib import Path

import numpy as np

TYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64}


def read(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    tensor = lambda t: np.frombuffer(body[slice(*t["data_offsets"])], TYPES[t["dtype"]]).reshape(t["shape"]).copy()
    return {name: tensor(t) for name, t in header.items() if name != "__metadata__"}


def write(path, tensors):
    header, body = {}, b""
    for name, tensor in sorted(tensors.items()):
        tensor = np.ascontiguousarray(tensor)
        kind = next(k for k, t in TYPES.items() if t == tensor.dtype)
        data = tensor.tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header + body)


def within(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
