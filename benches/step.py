"""Compares CaCo's training step in this crate with eager PyTorch, in pairs.

    pip install torch==2.11.0            # in a separate environment
    python benches/step.py               # both sizes, f32 and bf16, 7 alternating pairs each
    python benches/step.py --eager --shape small --precision f32 --steps 5     # one eager measurement, as JSON
    python benches/step.py --device cuda --shape large --batch 256             # on a GPU

Both sides train the same network at the same batch, precision and number of threads, channels-last, with LARS, the
key encoder's moving average and the bank's update. The eager side is written like published training code.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SHAPES = {
    "small": dict(block="basic", layers=(2, 2, 2, 2), width=16, stem="cifar", hidden=256, dim=64, size=32, batch=128, bank=4096),
    "large": dict(block="bottleneck", layers=(3, 4, 6, 3), width=64, stem="imagenet", hidden=2048, dim=256, size=224, batch=16, bank=65536),
}


def trainer(s, precision, threads, device="cpu"):
    """A step of training as a function of two views, both N x 3 x size x size and channels-last."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if device != "cpu":
        # As caco computes: reproducible, and without TF32.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def conv_norm(inside, out, kernel, stride):
        return nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)

    class Block(nn.Module):
        def __init__(self, inside, planes, stride):
            super().__init__()
            if s["block"] == "basic":
                out, path = planes, [(inside, planes, 3, stride), (planes, planes, 3, 1)]
            else:
                out = planes * 4
                path = [(inside, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
            layers = []
            for i, p in enumerate(path):
                layers += conv_norm(*p)
                if i + 1 < len(path):
                    layers.append(nn.ReLU(inplace=True))
            self.path = nn.Sequential(*layers)
            self.around = nn.Sequential(*conv_norm(inside, out, 1, stride)) if stride != 1 or inside != out else None
            self.relu = nn.ReLU(inplace=True)
            self.out = out

        def forward(self, x):
            y = self.path(x)
            y += x if self.around is None else self.around(x)
            return self.relu(y)

    def network():
        width = s["width"]
        kernel, stride = (7, 2) if s["stem"] == "imagenet" else (3, 1)
        layers = [*conv_norm(3, width, kernel, stride), nn.ReLU(inplace=True)]
        if s["stem"] == "imagenet":
            layers.append(nn.MaxPool2d(3, 2, 1))
        channels = width
        for layer, depth in enumerate(s["layers"]):
            for number in range(depth):
                block = Block(channels, width << layer, 2 if layer and not number else 1)
                channels = block.out
                layers.append(block)
        h = s["hidden"]
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(channels, h, bias=False), nn.BatchNorm1d(h), nn.ReLU(inplace=True),
            nn.Linear(h, h, bias=False), nn.BatchNorm1d(h), nn.ReLU(inplace=True), nn.Linear(h, s["dim"], bias=False),
        ).to(device, memory_format=torch.channels_last)

    class LARS(torch.optim.Optimizer):
        def __init__(self, params, lr, weight_decay=1.5e-6, momentum=0.9, trust=0.001):
            super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, trust=trust))

        @torch.no_grad()
        def step(self):
            for g in self.param_groups:
                for p in g["params"]:
                    dp = p.grad
                    if p.ndim > 1:
                        dp = dp.add(p, alpha=g["weight_decay"])
                        pn, gn = torch.norm(p), torch.norm(dp)
                        one = torch.ones_like(pn)
                        dp = dp.mul(torch.where(pn > 0.0, torch.where(gn > 0, g["trust"] * pn / gn, one), one))
                    state = self.state[p]
                    if "mu" not in state:
                        state["mu"] = torch.zeros_like(p)
                    mu = state["mu"]
                    mu.mul_(g["momentum"]).add_(dp)
                    p.add_(mu, alpha=-g["lr"])

    query, key = network(), network()
    key.load_state_dict(query.state_dict())
    for p in key.parameters():
        p.requires_grad = False
    optimizer = LARS(query.parameters(), lr=0.1)
    bank = torch.randn(s["dim"], s["bank"], device=device)
    velocity = torch.zeros_like(bank)
    n, tau, m = s["batch"], 0.08, 0.99
    autocast = lambda: torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")

    def step(x1, x2):
        nonlocal bank
        with autocast():
            q1, q2 = query(x1), query(x2)
        q1, q2 = F.normalize(q1.float(), dim=1), F.normalize(q2.float(), dim=1)
        with torch.no_grad():
            for pq, pk in zip(query.parameters(), key.parameters()):
                pk.data = pk.data * m + pq.data * (1 - m)
            with autocast():
                k1, k2 = key(x1), key(x2)
            k1, k2 = F.normalize(k1.float(), dim=1), F.normalize(k2.float(), dim=1)
        norm = bank.norm(dim=0, keepdim=True)
        d = bank / norm
        l1, l2 = q1 @ d, q2 @ d
        with torch.no_grad():
            j1, j2 = (k2 @ d).argmax(1), (k1 @ d).argmax(1)
        loss = F.cross_entropy(l1 / tau, j1) + F.cross_entropy(l2 / tau, j2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            gradient = 0
            for q, l, j in ((q1, l1, j1), (q2, l2, j2)):
                w = F.softmax(l / tau, dim=1)
                chance = w.gather(1, j[:, None])
                w.scatter_(1, j[:, None], 1 - chance)
                gradient = gradient + (q.T @ w / n - d * (w * l).mean(0)) / norm / tau
            velocity.mul_(0.9).sub_(gradient)
            bank -= 3.0 * velocity
        return loss

    return step


def eager(shape, precision, steps, threads, device="cpu", batch=None):
    import torch

    s = SHAPES[shape] | ({"batch": batch} if batch else {})
    step, n = trainer(s, precision, threads, device), s["batch"]
    view = lambda: torch.randn(n, 3, s["size"], s["size"], device=device).contiguous(memory_format=torch.channels_last)
    x1, x2 = view(), view()
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    for _ in range(2):
        step(x1, x2)
    wait()
    start, cpu = time.perf_counter(), []
    for _ in range(steps):
        before = time.process_time()
        step(x1, x2)
        cpu.append(time.process_time() - before)
    wait()
    return {"images_per_second": n * steps / (time.perf_counter() - start), "cpu_seconds": min(cpu)}


def ours(caco, shape, precision, steps, threads, device="cpu", batch=None):
    """The command that measures this crate."""
    s = SHAPES[shape] | ({"batch": batch} if batch else {})
    sizes = [f"--{name}={s[name]}" for name in ("width", "stem", "hidden", "dim", "size", "batch", "bank")]
    arch = "resnet18" if s["block"] == "basic" else "resnet50"
    return [caco, "bench", "step", "--arch", arch, *sizes, "--precision", precision, "--steps", steps, "--threads", threads, "--device", device, "--json"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eager", action="store_true", help="measure eager PyTorch once, and print JSON")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--precision", choices=("f32", "bf16"), action="append")
    parser.add_argument("--steps", type=int, help="steps per measurement")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--caco", default="target/release/caco")
    a = parser.parse_args()
    shapes, precisions = a.shape or list(SHAPES), a.precision or ["f32", "bf16"]
    if a.eager:
        print(json.dumps(eager(shapes[0], precisions[0], a.steps or 5, a.threads, a.device, a.batch)))
        return
    for shape in shapes:
        for precision in precisions:
            steps = str(a.steps or (6 if shape == "small" else 2))
            caco = ours(a.caco, shape, precision, steps, str(a.threads), a.device, a.batch)
            eager_ = [sys.executable, __file__, "--eager", "--shape", shape, "--precision", precision, "--steps", steps, "--threads", str(a.threads), "--device", a.device]
            eager_ += ["--batch", str(a.batch)] if a.batch else []
            measure = lambda command: json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["images_per_second"]
            pairs = []
            for _ in range(a.pairs):
                pairs.append((measure(caco), measure(eager_)))
                print(f"  {shape} {precision}: ours {pairs[-1][0]:.2f}, eager {pairs[-1][1]:.2f}", file=sys.stderr)
            ratio = statistics.median(o / e for o, e in pairs)
            print(json.dumps({"shape": shape, "precision": precision, "threads": a.threads, "ratio": round(ratio, 3),
                              "ours": round(statistics.median(o for o, _ in pairs), 2),
                              "eager": round(statistics.median(e for _, e in pairs), 2)}), flush=True)


if __name__ == "__main__":
    main()
