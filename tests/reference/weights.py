"""Weights in and out, checked with PyTorch itself.

    pip install torch==2.11.0 torchvision timm safetensors      # in an environment of its own
    python tests/reference/weights.py draw                      # draws tests/reference/pth afresh
    python tests/reference/weights.py network ARCH IMAGES FILE  # torchvision's network, with batch norm's statistics of images
    python tests/reference/weights.py save ENCODER FOLDER       # an encoder as .pth.tar in the published layout, zip and older
    python tests/reference/weights.py same A B                  # have two safetensors files the same backbone, bit by bit?
    python tests/reference/weights.py features EXPORT IMAGES FEATURES RESIZE CROP
        # the features that torchvision and timm compute with an exported ResNet on the images of a folder, in the order of
        # their paths, against those of a `features` stage; fails where max|a - b| / max(1, max|b|) is above 1e-4
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent / "pth"


def published(encoder):
    """What a CaCo training script saves: an encoder behind DistributedDataParallel, with what else there is."""
    state = {f"module.encoder_q.{name}": tensor for name, tensor in encoder.items()}
    state |= {f"module.encoder_k.{name}": tensor * 0.5 for name, tensor in list(encoder.items())[:5]}
    momentum = {0: {"momentum_buffer": torch.linspace(-1, 1, 7)}}
    return {"epoch": 200, "arch": "resnet18", "best_acc": 0.25, "state_dict": state, "W": torch.arange(12.0).view(3, 4).t(),
            "optimizer": {"state": momentum, "param_groups": [{"lr": 0.3, "nesterov": False, "params": [0]}]},
            "args": argparse.Namespace(lr=0.3, name="caco", dist=None)}


def tensors(value, name=""):
    """The tensors in nested dicts, keys joined by dots."""
    if torch.is_tensor(value):
        return {name: value}
    items = value.items() if isinstance(value, dict) else ()
    return {k: t for key, inner in items for k, t in tensors(inner, f"{name}.{key}" if name else str(key)).items()}


def smallest():
    """A ResNet-18 of width 1 with torchvision's names, every tensor different."""
    shapes = {"conv1.weight": (1, 3, 7, 7)}
    norm = lambda name, c: {f"{name}.{part}": (c,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes |= norm("bn1", 1)
    inside = 1
    for layer, out in enumerate((1, 2, 4, 8), 1):
        for block in range(2):
            at = f"layer{layer}.{block}"
            for number, channels in ((1, inside), (2, out)):
                shapes[f"{at}.conv{number}.weight"] = (out, channels, 3, 3)
                shapes |= norm(f"{at}.bn{number}", out)
            if inside != out:
                shapes[f"{at}.downsample.0.weight"] = (out, inside, 1, 1)
                shapes |= norm(f"{at}.downsample.1", out)
            inside = out
    shapes["fc.0.weight"] = (4, 8)
    torch.manual_seed(0)
    encoder = {name: torch.rand(shape) for name, shape in shapes.items()}
    encoder["bn1.num_batches_tracked"] = torch.tensor(1234)
    # As convolutions lie after training in channels-last.
    encoder["layer1.0.conv1.weight"] = encoder["layer1.0.conv1.weight"].contiguous(memory_format=torch.channels_last)
    return encoder


def save(encoder, folder):
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = published(encoder)
    torch.save(checkpoint, folder / "archive.pth.tar")
    torch.save(checkpoint, folder / "older.pth.tar", _use_new_zipfile_serialization=False)
    return checkpoint


def draw():
    checkpoint = save(smallest(), HERE)
    save_file({k: t.contiguous() for k, t in tensors(checkpoint).items()}, HERE / "expect.safetensors")


def same(a, b):
    a, b = ({k: t for k, t in load_file(f).items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")} for f in (a, b))
    if a.keys() != b.keys():
        sys.exit(f"they have other tensors: {sorted(a.keys() ^ b.keys())[:8]}")
    if other := [k for k in a if a[k].dtype != b[k].dtype or not torch.equal(a[k], b[k])]:
        sys.exit(f"they differ: {other[:8]}")
    print(json.dumps({"tensors": len(a), "identical": True}))


def batch_of(images, resize, crop, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """The images of a folder in the order of their paths, as the evaluations see them."""
    from PIL import Image
    from torchvision import transforms

    view = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop), transforms.ToTensor(),
                               transforms.Normalize(mean, std)])
    paths = sorted((p for p in Path(images).rglob("*") if p.is_file()), key=lambda p: str(p.relative_to(images)))
    return torch.stack([view(Image.open(p).convert("RGB")) for p in paths])


def network(arch, images, file):
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, arch)()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # plain means, so that one pass is enough
    with torch.no_grad():
        model.train()(batch_of(images, 256, 224)[:32])
    save_file({k: t for k, t in model.state_dict().items()}, file)


def features(export, images, expected, resize, crop):
    import timm
    import torchvision

    export, card = Path(export), json.loads((Path(export) / "card.json").read_text())
    arch = card["architecture"]["arch"].lower()
    state = load_file(export / "backbone.safetensors")
    ours = load_file(expected)["features"]
    batch = batch_of(images, int(resize), int(crop), card["images"]["mean"], card["images"]["std"])
    vision = getattr(torchvision.models, arch)()
    vision.fc = torch.nn.Identity()
    for name, model in (("torchvision", vision), ("timm", timm.create_model(arch, num_classes=0))):
        model.load_state_dict(state, strict=True)
        with torch.no_grad():
            theirs = torch.cat([model.eval()(part) for part in batch.split(32)])
        worst, largest = (theirs - ours).abs().max().item(), theirs.abs().max().item()
        distance = worst / max(1, largest)
        print(json.dumps({"library": name, "images": len(batch), "worst": worst, "largest": largest, "distance": distance}))
        if not distance <= 1e-4:
            sys.exit(f"{name} differs by {distance}")


command, *rest = sys.argv[1:] or [""]
if command == "draw":
    draw()
elif command == "network":
    network(*rest)
elif command == "save":
    save(load_file(rest[0]), Path(rest[1]))
elif command == "same":
    same(*rest)
elif command == "features":
    features(*rest)
else:
    sys.exit(__doc__)
