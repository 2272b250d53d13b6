"""The network, with torchvision's names for its tensors."""

from derivatives import Value, add, batch_norm, convolve, linear, max_pool, mean_pool, relu, unit


def parameter_shapes(case):
    shapes = {}

    def conv_norm(conv, norm, inside, out, kernel):
        shapes[conv + ".weight"] = (out, inside, kernel, kernel)
        shapes.update({f"{norm}.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")})

    conv_norm("conv1", "bn1", 3, case["width"], 7 if case["stem"] == "imagenet" else 3)
    for name, path, shortcut, _ in blocks(case):
        for i, (inside, out, kernel, _) in enumerate(path, 1):
            conv_norm(f"{name}.conv{i}", f"{name}.bn{i}", inside, out, kernel)
        if shortcut:
            conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", *shortcut, 1)
    features, hidden = path[-1][1], case["hidden"]
    for place, inside, out in ((0, features, hidden), (3, hidden, hidden), (6, hidden, case["dim"])):
        shapes[f"fc.{place}.weight"] = (out, inside)
    for place in (1, 4):
        shapes.update({f"fc.{place}.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")})
    return shapes


def blocks(case):
    """Name, path of (in, out, kernel, stride), shortcut (in, out) or None, stride."""
    channels = case["width"]
    for layer, depth in enumerate(case["layers"]):
        planes = case["width"] << layer
        for number in range(depth):
            stride = 2 if layer and not number else 1
            if case["block"] == "basic":
                out = planes
                path = [(channels, planes, 3, stride), (planes, planes, 3, 1)]
            else:
                out = 4 * planes
                path = [(channels, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
            shortcut = (channels, out) if stride != 1 or channels != out else None
            yield f"layer{layer + 1}.{number}", path, shortcut, stride
            channels = out


def forward(case, weights, buffers, images):
    conv = lambda x, name, kernel, stride: convolve(x, weights[name + ".weight"], stride, kernel // 2)
    norm = lambda x, name: batch_norm(x, weights, name, buffers)
    kernel, stride = (7, 2) if case["stem"] == "imagenet" else (3, 1)
    x = relu(norm(conv(Value(images), "conv1", kernel, stride), "bn1"))
    if case["stem"] == "imagenet":
        x = max_pool(x)
    for name, path, shortcut, stride in blocks(case):
        around = norm(conv(x, name + ".downsample.0", 1, stride), name + ".downsample.1") if shortcut else x
        y = x
        for i, (_, _, kernel, s) in enumerate(path, 1):
            y = norm(conv(y, f"{name}.conv{i}", kernel, s), f"{name}.bn{i}")
            if i < len(path):
                y = relu(y)
        x = relu(add(y, around))
    x = mean_pool(x)
    for place in (0, 3):
        x = relu(norm(linear(x, weights[f"fc.{place}.weight"]), f"fc.{place + 1}"))
    return linear(x, weights["fc.6.weight"])


def is_buffer(name):
    return "running_" in name


class Encoder:
    """Backbone and head, in training mode: each view is a pass of its own, and moves the running statistics."""

    def __init__(self, case, tensors):
        self.case = case
        self.parameters = {n: t.copy() for n, t in tensors.items() if not is_buffer(n)}
        self.buffers = {n: t.copy() for n, t in tensors.items() if is_buffer(n)}

    def project(self, views):
        """The head's outputs for some views, one after the other, and the parameters as differentiable values."""
        weights = {n: Value(p) for n, p in self.parameters.items()}
        return [forward(self.case, weights, self.buffers, view) for view in views], weights

    def embed(self, views):
        """The same, with outputs of unit length."""
        outputs, weights = self.project(views)
        return [unit(x) for x in outputs], weights

    def average(self, m, other):
        """Moves the parameters, and only those, towards another encoder's."""
        for name, p in self.parameters.items():
            p[...] = m * p + (1 - m) * other.parameters[name]

    def tensors(self):
        return {**self.parameters, **self.buffers}
