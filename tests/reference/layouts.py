#!/usr/bin/env python3
"""Imports checkpoints in the layouts of published training code, each rebuilt small, and compares every tensor with torch.load.

    pip install torch==2.11.0 torchvision safetensors           # in an environment of its own
    cargo build --release
    python tests/reference/layouts.py [--caco target/release/caco] [--keep FOLDER]

A layout is what one program saves: its nested dicts, its prefixes, its heads, and the objects beside the weights. All are of a
ResNet-18 or -50 of width 4. A `prefix` is given where a file contains several networks and none is called the trained one. Exit code 1
where a file is not imported, or a tensor differs in a bit; or where a file that cannot be imported is, or without a reason.
"""
import argparse, collections, datetime, json, pathlib, subprocess, sys, tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

torch.manual_seed(0)


def network(arch="resnet18", classes=True):
    """A state_dict of width 4, each tensor different."""
    small = lambda side: side // 16 if 64 <= side <= 2048 and side != 1000 else 10 if side == 1000 else side
    state = collections.OrderedDict()
    for name, value in getattr(models, arch)().state_dict().items():
        shape = [small(side) if at < 2 else side for at, side in enumerate(value.shape)]
        if classes or not name.startswith("fc."):
            state[name] = torch.rand(shape) - 0.25 if value.dim() else torch.tensor(7)
    return state


def under(prefix, state):
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def head(name, *sizes, norm=False):
    """Linear layers, with batch norm between them, numbered as in a Sequential."""
    tensors, at = {}, 0
    for inside, out in zip(sizes, sizes[1:]):
        tensors |= {f"{name}.{at}.weight": torch.rand(out, inside), f"{name}.{at}.bias": torch.rand(out)}
        if norm:
            tensors |= {f"{name}.{at + 1}.{part}": torch.rand(out) for part in ("weight", "bias", "running_mean", "running_var")}
            tensors[f"{name}.{at + 1}.num_batches_tracked"] = torch.tensor(7)
        at += 3 if norm else 2
    return tensors


def children(state, numbers=(0, 1, 4, 5, 6, 7)):
    """The names after torch.nn.Sequential(*resnet.children())."""
    number = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), numbers))
    split = {name: name.partition(".") for name in state}
    return collections.OrderedDict((f"{number[m]}.{rest}", state[name]) for name, (m, _, rest) in split.items() if m in number)


def optimizer(kind=torch.optim.SGD, **options):
    """The state of an optimizer after a step."""
    parameter = torch.nn.Parameter(torch.rand(5))
    stepped = kind([parameter], lr=0.03, **options)
    parameter.sum().backward()
    stepped.step()
    return stepped.state_dict()


r18, r50 = network(), network("resnet50")
body, body50 = network(classes=False), network("resnet50", classes=False)
other = network(classes=False)
sgd = optimizer(momentum=0.9)
arguments = argparse.Namespace(arch="resnet18", lr=0.03, dist_backend="nccl", device=torch.device("cuda", 0), schedule=[120, 160],
                               dtype=torch.float16, started=datetime.datetime(2024, 5, 17, 12, 30), root=pathlib.PurePosixPath("/data"))
moco_v1 = under("module.encoder_q.", {**body, "fc.weight": torch.rand(8, 32), "fc.bias": torch.rand(8)})
moco_v1 |= under("module.encoder_k.", other) | {"module.queue": torch.rand(8, 16), "module.queue_ptr": torch.tensor([3])}
moco_v2 = under("module.encoder_q.", body50 | head("fc", 128, 128, 8)) | under("module.encoder_k.", network("resnet50", False))
moco_v3 = under("module.base_encoder.", body50 | head("fc", 128, 64, 8, norm=True))
moco_v3 |= under("module.momentum_encoder.", network("resnet50", False)) | head("module.predictor", 8, 64, 8, norm=True)
dino = {"student": under("module.backbone.", other) | {"module.head.mlp.0.weight": torch.rand(8, 32)},
        "teacher": under("backbone.", body) | {"head.mlp.0.weight": torch.rand(8, 32)},
        "optimizer": optimizer(torch.optim.AdamW), "epoch": 100, "args": arguments,
        "dino_loss": {"center": torch.rand(1, 8)}, "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0}}
lightning = {"epoch": 199, "global_step": 19600, "pytorch-lightning_version": "2.1.0", "callbacks": {"ModelCheckpoint{}": {
    "best_model_score": torch.tensor(0.7), "best_model_path": "x.ckpt"}}, "lr_schedulers": [{"last_epoch": 3}], "loops": {},
    "optimizer_states": [sgd], "hyper_parameters": {"batch_size": 256, "lr": 0.06}}
mmcv = {"meta": {"epoch": 200, "mmselfsup_version": "0.9", "env_info": "…", "seed": np.int64(0), "time": "Mon Jan 3 12:00:00 2022"}}
classes = under("module.", body | head("projection_head", 32, 32, 8, norm=True)) | {"module.prototypes.weight": torch.rand(30, 8)}

# What is saved, the prefix of the backbone in it, whether import_weights is given that prefix, and how it is saved.
Layout = collections.namedtuple("Layout", "content at given save", defaults=(False, torch.save))
older = lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False)
hub = lambda content, path: save_file(content, path, {"format": "pt"})
LAYOUTS = {
    "torchvision": Layout(r18, ""),
    "torchvision-50-older": Layout(r50, "", save=older),
    "hub-safetensors": Layout(r50, "", save=hub),
    "moco-v1": Layout({"epoch": 200, "arch": "resnet18", "state_dict": moco_v1, "optimizer": sgd}, "state_dict.module.encoder_q.", save=older),
    "moco-v2": Layout({"epoch": 800, "arch": "resnet50", "state_dict": moco_v2, "optimizer": sgd}, "state_dict.module.encoder_q."),
    "moco-v3": Layout({"epoch": 300, "arch": "resnet50", "state_dict": moco_v3, "optimizer": optimizer(torch.optim.AdamW),
                       "scaler": {"scale": 65536.0, "_growth_tracker": 12}}, "state_dict.module.base_encoder."),
    "caco": Layout({"epoch": 200, "arch": "resnet18", "state_dict": moco_v1, "W": torch.rand(8, 64), "best_acc": np.float64(71.3),
                    "optimizer": sgd, "args": arguments}, "state_dict.module.encoder_q."),
    "simsiam": Layout({"epoch": 100, "arch": "resnet50", "optimizer": sgd, "state_dict": under("module.encoder.", body50 | head(
        "fc", 128, 64, 8, norm=True)) | head("module.predictor", 8, 4, 8, norm=True)}, "state_dict.module.encoder."),
    "byol-lightly": Layout(lightning | {"state_dict": under("backbone.", children(body)) | under("backbone_momentum.", children(
        other)) | head("projection_head.layers", 32, 16, 8, norm=True)}, "state_dict.backbone.", True),
    "solo-learn": Layout(lightning | {"state_dict": under("backbone.", body) | under("momentum_backbone.", other) | {
        "classifier.weight": torch.rand(10, 32)} | head("projector", 32, 16, 8, norm=True)}, "state_dict.backbone.", True),
    "solo-learn-older": Layout(lightning | {"state_dict": under("encoder.", body) | {
        "classifier.weight": torch.rand(10, 32)}}, "state_dict.encoder."),
    "swav": Layout(classes, "module."),
    "swav-training": Layout({"epoch": 400, "state_dict": classes, "optimizer": sgd, "amp": {"loss_scaler0": {"loss_scale": 65536.0}}},
                            "state_dict.module."),
    "deepcluster-v2": Layout({"epoch": 800, "arch": "resnet18", "state_dict": classes | {"module.prototypes0.weight": torch.rand(9, 8)},
                              "optimizer": sgd}, "state_dict.module."),
    "deepcluster-features": Layout({"epoch": 100, "arch": "resnet18", "state_dict": under("features.module.", children(body)) | {
        "top_layer.weight": torch.rand(9, 32)}, "optimizer": sgd}, "state_dict.features.module."),
    "dino": Layout(dino, "teacher.backbone.", True),
    "barlow-twins": Layout({"epoch": 1000, "model": under("module.backbone.", body50) | head("module.projector", 128, 64, 8, norm=True) | {
        "module.bn.running_mean": torch.rand(8)}, "optimizer": sgd}, "model.module.backbone."),
    "vicreg": Layout({"epoch": 1000, "model": under("module.backbone.", body50) | head("module.projector", 128, 64, 8, norm=True),
                      "optimizer": sgd}, "model.module.backbone."),
    "timm-training": Layout({"epoch": 90, "arch": "resnet50", "state_dict": r50, "optimizer": sgd, "version": 2, "args": arguments,
                             "metric": np.float64(79.1), "state_dict_ema": network("resnet50")}, "state_dict.", True),
    "mmselfsup": Layout(mmcv | {"state_dict": under("backbone.", body50) | head("head.predictor", 8, 8)}, "state_dict.backbone."),
    "openselfsup-densecl": Layout(mmcv | {"optimizer": sgd, "state_dict": under("backbone.", body50) | under("encoder_q.0.", body50) | under(
        "encoder_k.0.", network("resnet50", False)) | head("encoder_q.1.mlp", 128, 64, 8) | {"queue": torch.rand(8, 16)}},
        "state_dict.encoder_q.0."),
    "pirl": Layout({"epoch": 200, "model": under("module.encoder.", body50) | {"module.head.0.weight": torch.rand(8, 128)}, "opt": arguments,
                    "optimizer": sgd, "contrast": {"memory": torch.rand(16, 8)}}, "model.module.encoder."),
    "infomin": Layout({"opt": arguments, "model": under("module.encoder.", body50) | {"module.head.0.weight": torch.rand(8, 128)}, "epoch":
                       800, "optimizer": sgd, "model_ema": under("module.encoder.", network("resnet50", False))}, "model.module.encoder.", True),
    "pcl": Layout({"epoch": 200, "arch": "resnet18", "state_dict": moco_v1, "optimizer": sgd, "seen": {1, 2}}, "state_dict.module.encoder_q."),
    "simclr-pytorch": Layout({"epoch": 100, "arch": "resnet18", "optimizer": optimizer(torch.optim.Adam), "state_dict": under(
        "backbone.", body | head("fc", 32, 32, 8))}, "state_dict.backbone."),
    "vissl": Layout({"phase_idx": 7, "iteration": 900, "loss": torch.tensor(0.4), "classy_state_dict": {"base_model": {"model": {
        "trunk": under("_feature_blocks.", body), "heads": {"0.clf.0.weight": torch.rand(8, 32)}}}}, "type": "iteration"},
        "classy_state_dict.base_model.model.trunk._feature_blocks."),
    "half": Layout({"state_dict": {k: v.half() for k, v in r18.items()}}, "state_dict."),
    "objects": Layout({"state_dict": r18, "losses": np.arange(4.0), "started": datetime.datetime(2024, 5, 17), "optimizer":
                       torch.optim.Adam([torch.nn.Parameter(torch.rand(3))]), "seen": {1, 2}, "blob": b"\xff\0"}, "state_dict."),
    "tuple": Layout((r18, {"epoch": 3}), "0."),
}


class Narrow(torch.nn.Module):
    def forward(self, x):
        return x


REFUSED = {
    "torchscript": (torch.jit.script(Narrow()), lambda content, path: content.save(path), "TorchScript"),
    "whole-model": (models.resnet18(), torch.save, "state_dict"),
}


def tensors(value, name=""):
    """The tensors in nested dicts, keys joined by dots."""
    items = enumerate(value) if isinstance(value, tuple) else value.items() if isinstance(value, dict) else ()
    found = {name: value} if torch.is_tensor(value) else {}
    return found | {k: t for key, inner in items for k, t in tensors(inner, f"{name}.{key}" if name else str(key)).items()}


def backbone(file, layout):
    """What PyTorch reads from a file, by torchvision's names."""
    loaded = load_file(file) if layout.save is hub else tensors(torch.load(file, weights_only=False))
    below = {name.removeprefix(layout.at): tensor for name, tensor in loaded.items() if name.startswith(layout.at)}
    names = body50 if "layer1.0.conv3.weight" in below or "4.0.conv3.weight" in below else body
    numbers = dict(zip(names, names if "conv1.weight" in below else children(names)))
    return {name: below[numbers[name]] for name in names if not name.endswith("num_batches_tracked")}


def main(caco, folder):
    stages = ""
    stage = lambda name, arch, more="": f'        "{name}": import_weights(file: Path("{name}.pth"), arch: {arch}, width: 4{more}),\n'
    for name, layout in LAYOUTS.items():
        layout.save(layout.content, folder / f"{name}.pth")
        arch = "ResNet50" if len(backbone(folder / f"{name}.pth", layout)) > 150 else "ResNet18"
        stages += stage(name, arch, f", prefix: {json.dumps(layout.at)}" if layout.given else "")
    for name, (content, save, _) in REFUSED.items():
        save(content, folder / f"{name}.pth")
        stages += stage(name, "ResNet18")
    (folder / "pipeline.ron").write_text(f"(\n    stages: {{\n{stages}    }},\n)\n")
    ask = lambda *command: subprocess.run([caco, *command], cwd=folder, capture_output=True, text=True)
    ask("run", "pipeline.ron", "--keep-going")
    reason = lambda name: " ".join(line for line in ask("log", name, "-p", "pipeline.ron").stdout.splitlines() if "error" in line.lower())
    wrong = 0
    for name, layout in LAYOUTS.items():
        if ask("get", f"{name}/encoder", f"{name}.safetensors", "-p", "pipeline.ron").returncode:
            print(f"{name:24} NOT IMPORTED: {reason(name)}")
            wrong += 1
            continue
        ours, theirs = load_file(folder / f"{name}.safetensors"), backbone(folder / f"{name}.pth", layout)
        bits = lambda tensor: tensor.float().contiguous().view(torch.int32)
        differ = sorted(ours.keys() ^ theirs.keys()) or [k for k in ours if not torch.equal(bits(ours[k]), bits(theirs[k]))]
        print(f"{name:24} {f'DIFFERS: {differ[:4]}' if differ else f'{len(ours)} tensors equal'}")
        wrong += bool(differ)
    for name, (_, _, word) in REFUSED.items():
        clear = word in reason(name)
        print(f"{name:24} {'refused' if clear else 'NO CLEAR REASON'}: {reason(name)}")
        wrong += not clear
    print(f"{len(LAYOUTS)} layouts imported and {len(REFUSED)} refused, {wrong} of them wrong")
    return wrong


options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--caco", default="target/release/caco", type=pathlib.Path)
options.add_argument("--keep", type=pathlib.Path, help="write the files here instead of to a temporary folder")
options = options.parse_args()
with tempfile.TemporaryDirectory() as temporary:
    folder = options.keep or pathlib.Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    sys.exit(main(options.caco.resolve(), folder) > 0)
