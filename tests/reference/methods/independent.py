"""Compares the methods with code that others wrote: Lightly's losses, predictor and prototypes, and torchvision's blocks,
on PyTorch, with the gradients that PyTorch derives.

    pip install torch==2.11.0 torchvision==0.26.0 lightly==1.6.0      # in an environment of its own
    python tests/reference/methods/independent.py [--tensors] [FOLDER…]   # without folders, all cases of methods

Before every step of a case PyTorch gets the weights that the method has then. Compared are loss, gradients, running
statistics, what PyTorch's SGD makes of the weights, and AdCo's bank: max|a - b| / max(1, max|b|) is at most 1e-11 in f64
and 1e-4 in f32, whose rounding batch norm over so few images enlarges. `--tensors` prints the worst of every tensor
instead of the worst of every case.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.models.modules import BYOLPredictionHead, SwaVPrototypes
from lightly.models.modules.heads import ProjectionHead
from lightly.models.utils import update_momentum
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from reference import begin, views_of  # noqa: E402
from tensors import read  # noqa: E402

BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-11}


class Network(nn.Module):
    def __init__(self, case):
        super().__init__()
        width, imagenet = case["width"], case["stem"] == "imagenet"
        self.conv1 = nn.Conv2d(3, width, 7 if imagenet else 3, 2 if imagenet else 1, 3 if imagenet else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        block = BasicBlock if case["block"] == "basic" else Bottleneck
        self.layers, channels = [], width
        for number, depth in enumerate(case["layers"]):
            planes, layer = width << number, []
            for place in range(depth):
                stride, out = 2 if number and not place else 1, planes * block.expansion
                shortcut = None
                if stride != 1 or channels != out:
                    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                layer.append(block(channels, planes, stride, shortcut))
                channels = out
            self.layers.append(f"layer{number + 1}")
            self.add_module(self.layers[-1], nn.Sequential(*layer))
        hidden, dim = case["hidden"], case["dim"]
        part = lambda inside: (inside, hidden, nn.BatchNorm1d(hidden), nn.ReLU(), False)
        self.fc = ProjectionHead([part(channels), part(hidden), (hidden, dim, None, None, False)]).layers

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for layer in self.layers:
            x = getattr(self, layer)(x)
        return self.fc(x.mean((2, 3)))


def load(module, tensors, kind):
    """Module in training mode with these weights. Biases that the method has not are zero and stay so."""
    module = module.to(kind).train()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in tensors:
            tensor.data.copy_(torch.as_tensor(tensors[name]))
        elif name.endswith("bias"):
            tensor.data.zero_()
            tensor.requires_grad_(False)
        elif not name.endswith("num_batches_tracked"):
            raise KeyError(name)
    return module


class Torch:
    """A step of the method with the library, from the method's state before it."""

    def __init__(self, case, method, kind):
        self.case, self.kind = case, kind
        ((self.name, self.constants),) = case["method"].items()
        end = method.end()
        self.modules = {"encoder_q": load(Network(case), end["encoder_q"], kind)}
        if "encoder_k" in end:
            self.modules["encoder_k"] = load(Network(case), end["encoder_k"], kind)
        if "predictor" in end:
            head = BYOLPredictionHead(case["dim"], case["predictor"], case["dim"]).layers
            self.modules["predictor"] = load(head, end["predictor"], kind)
        if "prototypes" in end:
            head = SwaVPrototypes(case["dim"], case["prototypes"])
            self.modules["prototypes"] = load(head, {"heads.0.weight": end["prototypes"]["weight"]}, kind)
        self.bank = {"MoCoV2": "queue", "AdCo": "bank"}.get(self.name)
        if self.bank:
            columns = torch.tensor(getattr(method, self.bank), dtype=kind)
            self.bank = columns.requires_grad_(self.name == "AdCo")
        self.velocity = getattr(method, "velocity", None)
        self.momentum = {name: torch.tensor(v, dtype=kind) for name, v in method.optimizer.momentum.items()}

    def step(self, number, views):
        views = [torch.tensor(view, dtype=self.kind) for view in views]
        losses = {"MoCoV2": self.moco, "AdCo": self.adco, "SimCLR": self.simclr, "BYOL": self.byol, "SwAV": self.swav}
        loss = losses[self.name](views)
        loss.sum().backward()
        output = {"loss": loss.detach().reshape(1)}
        output |= {f"gradient {name}": p.grad.clone() for name, p in self.parameters().items()}
        if "Sgd" in self.case["optimizer"]:
            self.sgd()
            output |= {f"final.encoder_q.{name}": p.detach() for name, p in self.parameters().items()}
        if self.velocity is not None:
            output["W"] = self.ascended()
        for group, module in self.modules.items():
            statistics = {name: t for name, t in module.named_buffers() if "running_" in name}
            output |= {f"final.{group}.{name}": t for name, t in statistics.items()}
        return output

    def parameters(self):
        """What is trained, by the names of the case."""
        names = {}
        for group, module in self.modules.items():
            prefix = {"encoder_q": "", "predictor": "predictor.", "prototypes": "prototypes."}.get(group)
            if prefix is not None:
                trained = {n.removeprefix("heads.0."): p for n, p in module.named_parameters() if p.requires_grad}
                names |= {prefix + name: p for name, p in trained.items()}
        return names

    def sgd(self):
        parameters = self.parameters()
        optimizer = torch.optim.SGD(parameters.values(), lr=self.case["lr"], **self.case["optimizer"]["Sgd"])
        for name, p in parameters.items():
            optimizer.state[p]["momentum_buffer"] = self.momentum[name]
        optimizer.step()

    def ascended(self):
        """The bank after a step of PyTorch's SGD up its loss."""
        c = self.constants
        optimizer = torch.optim.SGD([self.bank], lr=c["bank_rate"], momentum=c["bank_momentum"], maximize=True)
        optimizer.state[self.bank]["momentum_buffer"] = torch.tensor(self.velocity, dtype=self.kind)
        optimizer.step()
        return self.bank.detach()

    def pairs(self, views):
        """(query, key) of every direction; the key encoder moves before."""
        query, key = self.modules["encoder_q"], self.modules["encoder_k"]
        update_momentum(query, key, self.constants["key_momentum"])
        if not self.constants["symmetric"]:
            return [(query(views[0]), key(views[1]).detach())]
        q0, q1 = query(views[0]), query(views[1])
        k0, k1 = key(views[0]).detach(), key(views[1]).detach()
        return [(q0, k1), (q1, k0)]

    def contrast(self, q, k, columns):
        loss = NTXentLoss(self.constants["temperature"], memory_bank_size=tuple(columns.T.shape)).to(self.kind)
        loss.memory_bank.bank = columns.detach().T.clone()
        return loss(q, k)

    def moco(self, views):
        return sum(self.contrast(q, k, self.bank) for q, k in self.pairs(views))

    def adco(self, views):
        unit, pairs = F.normalize(self.bank, dim=0), self.pairs(views)
        # The bank's own loss: PyTorch derives its gradient from the same logits at the other temperature.
        for q, k in pairs:
            q, k = F.normalize(q.detach()), F.normalize(k)
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ unit], 1) / self.constants["bank_temperature"]
            F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long)).backward(retain_graph=True)
        return sum(self.contrast(q, k, unit) for q, k in pairs)

    def simclr(self, views):
        return NTXentLoss(self.constants["temperature"])(*[self.modules["encoder_q"](view) for view in views])

    def byol(self, views):
        outputs = [self.modules["encoder_q"](view) for view in views]
        p0, p1 = [self.modules["predictor"](x) for x in outputs]
        z0, z1 = [self.modules["encoder_k"](view).detach() for view in views]
        cosine = NegativeCosineSimilarity()
        return (2 + 2 * cosine(p0, z1)) + (2 + 2 * cosine(p1, z0))

    def swav(self, views):
        prototypes = self.modules["prototypes"]
        prototypes.normalize()
        scores = [prototypes(F.normalize(self.modules["encoder_q"](view))) for view in views]
        c = self.constants
        loss = SwaVLoss(c["temperature"], c["iterations"], c["epsilon"])
        return loss(scores[:2], scores[2:])


def compare(case, init, steps, kind):
    """The largest difference of each tensor."""
    method, worst = begin(case, init), {}
    gradients, step = {}, method.optimizer.step

    def recording(given):
        gradients.clear()
        gradients.update(given)
        step(given)

    method.optimizer.step = recording
    for number in range(case["steps"]):
        views = views_of(steps, number)
        theirs = Torch(case, method, kind).step(number, views)
        ours = method.step(number, views)
        ours |= {f"gradient {name}": g for name, g in gradients.items()}
        for group, tensors in method.end().items():
            ours |= {f"final.{group}.{name}": t for name, t in tensors.items()}
        frozen = {"gradient prototypes.weight"} if case.get("freeze", {number: False})[number] else set()
        of = lambda tensors: {name for name in tensors if name.startswith("gradient ")}
        alone = of(ours) ^ of(theirs)
        assert alone == frozen, f"one side alone should have {frozen or 'no gradient'}, but it has {alone or 'none'}"
        for name in theirs.keys() - frozen:
            a, b = torch.as_tensor(ours[name]).reshape(theirs[name].shape), theirs[name].double()
            distance = float((a - b).abs().max() / max(1.0, b.abs().max()))
            worst[name] = max(worst.get(name, 0.0), distance if distance == distance else float("inf"))
    return worst


def main():
    arguments = [a for a in sys.argv[1:] if a != "--tensors"]
    folders = [Path(a) for a in arguments] or sorted((ROOT / "cases").iterdir())
    torch.set_num_threads(1)
    agree = True
    for folder in folders:
        case = json.loads((folder / "case.json").read_text())
        if case["mode"] != "method":
            continue
        init, steps = read(folder / "init.safetensors"), read(folder / "steps.safetensors")
        worst = {kind: compare(case, init, steps, kind) for kind in BOUNDS}
        agree &= all(max(worst[kind].values()) <= bound for kind, bound in BOUNDS.items())
        names = sorted(worst[torch.float64]) if "--tensors" in sys.argv else [None]
        for name in names:
            line = {"case": folder.name} | ({"tensor": name} if name else {"tensors": len(worst[torch.float64])})
            for kind, figures in worst.items():
                where = name or max(figures, key=figures.get)
                line[str(kind).removeprefix("torch.")] = figures[where]
                if not name:
                    line[str(kind).removeprefix("torch.") + "_where"] = where
            print(json.dumps(line))
    sys.exit(not agree)


if __name__ == "__main__":
    main()
