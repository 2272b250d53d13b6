"""Compares CaCo's training step in several processes with PyTorch's DistributedDataParallel over Gloo, in pairs.

    pip install torch==2.11.0 numpy      # in a separate environment
    python benches/processes.py          # one and two processes, and DistributedDataParallel in two; three alternating rounds

Both sides train ResNet-18 of width 16 on two views of 32 px with a momentum encoder and a bank of 4,096 columns, at batch 128
in f32, with one thread and one core a process, and batch norm over the whole batch. The other side updates by plain SGD, which
is less work than LARS. torch.nn.SyncBatchNorm refuses CPU tensors, so its forward and backward passes are written here.
"""

import json
import os
import random
import subprocess
import sys
import time

CACO = "bench step --arch resnet18 --width 16 --size 32 --batch 128 --bank 4096 --hidden 128 --dim 64 --shards 8 --threads 1"
STEPS = 20


def step_of_ddp(rank, world):
    import torch
    import torch.distributed as dist
    import torch.nn as nn
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel

    class Joint(torch.autograd.Function):
        """Batch norm over all processes."""

        @staticmethod
        def forward(ctx, x, weight, bias, running_mean, running_var):
            dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
            sums = torch.stack([x.sum(dims), (x * x).sum(dims)])
            dist.all_reduce(sums)
            count = x.numel() / x.size(1) * world
            mean = sums[0] / count
            var = sums[1] / count - mean * mean
            running_mean.mul_(0.9).add_(mean, alpha=0.1)
            running_var.mul_(0.9).add_(var, alpha=0.1 * count / (count - 1))
            inverse = (var + 1e-5).rsqrt()
            scale = weight * inverse
            ctx.save_for_backward(x, weight, mean, inverse)
            ctx.count = count
            return torch.addcmul((bias - mean * scale).view(shape), x, scale.view(shape))

        @staticmethod
        def backward(ctx, g):
            x, weight, mean, inverse = ctx.saved_tensors
            dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
            centred = x - mean.view(shape)
            own = torch.stack([g.sum(dims), (g * centred).sum(dims)])
            sums = own.clone()
            dist.all_reduce(sums)
            slope = sums[1] * inverse * inverse / ctx.count
            dx = (g - (sums[0] / ctx.count).view(shape) - centred * slope.view(shape)) * (weight * inverse).view(shape)
            return dx, own[1] * inverse, own[0], None, None

    class Norm(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("var", torch.ones(channels))

        def forward(self, x):
            return Joint.apply(x, self.weight, self.bias, self.mean, self.var)

    class Block(nn.Module):
        def __init__(self, before, channels, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = Norm(channels), Norm(channels)
            same = stride == 1 and before == channels
            self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), Norm(channels))

        def forward(self, x):
            return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.skip(x))

    class Net(nn.Module):
        def __init__(self, width=16, hidden=128, dim=64):
            super().__init__()
            layers, before = [nn.Conv2d(3, width, 3, 1, 1, bias=False), Norm(width), nn.ReLU()], width
            for stage in range(4):
                channels = width << stage
                layers += [Block(before, channels, 2 if stage else 1), Block(channels, channels, 1)]
                before = channels
            self.body = nn.Sequential(*layers)
            head = [nn.Linear(before, hidden, bias=False), Norm(hidden), nn.ReLU()]
            head += [nn.Linear(hidden, hidden, bias=False), Norm(hidden), nn.ReLU(), nn.Linear(hidden, dim)]
            self.head = nn.Sequential(*head)

        def forward(self, x):
            return F.normalize(self.head(self.body(x).mean((2, 3))), dim=1)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    batch = 128 // world
    query, key = (Net().to(memory_format=torch.channels_last) for _ in range(2))
    key.load_state_dict(query.state_dict())
    trained = DistributedDataParallel(query)
    bank = F.normalize(torch.randn(64, 4096), dim=0)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.1, momentum=0.9)
    views = torch.randn(2 * batch, 3, 32, 32).to(memory_format=torch.channels_last)

    def step():
        queries = trained(views)
        with torch.no_grad():
            keys = key(views)
            positives = (torch.cat([keys[batch:], keys[:batch]]) @ bank).argmax(1)
        of_queries, columns = queries.detach().requires_grad_(), bank.detach().requires_grad_()
        F.cross_entropy(of_queries @ columns / 0.08, positives).backward()
        queries.backward(of_queries.grad)
        dist.all_reduce(columns.grad)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            bank.add_(F.normalize(columns.grad, dim=0), alpha=0.1)
            bank.copy_(F.normalize(bank, dim=0))
            for average, weight in zip(key.parameters(), query.parameters()):
                average.mul_(0.99).add_(weight, alpha=0.01)

    for _ in range(2):
        step()
    dist.barrier()
    begun = time.monotonic()
    for _ in range(STEPS):
        step()
    if rank == 0:
        print(128 * STEPS / (time.monotonic() - begun))


def ddp(world):
    port = str(random.randrange(20000, 60000))
    members = []
    for rank in range(world):
        env = dict(os.environ, OMP_NUM_THREADS="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(world))
        env.pop("LD_LIBRARY_PATH", None)
        command = ["taskset", "-c", str(rank), sys.executable, __file__, "--member", str(rank), str(world)]
        members.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    answers = [member.communicate()[0] for member in members]
    assert all(member.returncode == 0 for member in members)
    return float(answers[0])


def caco(processes):
    command = ["target/release/caco", *CACO.split(), "--steps", str(STEPS), "--processes", str(processes), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    if "--member" in sys.argv:
        return step_of_ddp(*map(int, sys.argv[2:4]))
    for _ in range(3):
        one, two, other = caco(1), caco(2), ddp(2)
        assert one["digest"] == two["digest"]
        rates = one["images_per_second"], two["images_per_second"], other
        print("images/s: %.0f one process, %.0f two, %.0f DDP in two; " % rates, end="")
        share = two["milliseconds"]["exchange"] / (128e3 / rates[1])
        print("two/one %.2f, two/DDP %.2f, exchange %.0f %%" % (rates[1] / rates[0], rates[1] / other, 100 * share))


main()
