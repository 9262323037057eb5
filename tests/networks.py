"""Small networks that several tests share, each with its two halves written out: `stem` up to the target layer, `head`
from there to the scores. Random weights from fixed seeds, nothing in place, no hooks: what a probe must agree with.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench import catalogue
from gradcam_bench.choices import View
from gradcam_bench.geometry import Frame
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.models.surgery import Foreground
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.samples import Batch, Sample, annotation

BLACK = (-1.0, -2.0, -0.5)  # of networks whose images are as fed, for methods that start from black
torch.set_num_threads(1)  # tiny networks gain nothing from more


class Gap(nn.Module):
    """Convolutions, global average pooling, one linear map. [B,3,H,W] -> [B,K]; `features` is signed on demand."""

    def __init__(self, classes: int = 4, channels: int = 5, signed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.features = nn.Sequential(nn.Conv2d(6, channels, 3, 2, 1), nn.Identity() if signed else nn.ReLU())
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(self.stem(images)).mean((2, 3)))


class InPlace(nn.Module):
    """A functional in-place ReLU right after `layer`, which so never sees the light of day."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 5, 3, 1, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.relu_(self.layer(F.relu_(self.stem(images)))).mean((2, 3)).square())


class Twice(nn.Module):
    """Calls its `block` two times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 5, 3, 1, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        first = self.block(self.stem(images)).tanh()
        return self.fc(self.block(first).sigmoid().square().mean((2, 3)))


class Tokens(nn.Module):
    """A small transformer: patches of 8 x 8, `prefix` tokens before them, two blocks, the first token to the head."""

    def __init__(self, prefix: int = 1, channels: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 8, 8)
        self.first = nn.Parameter(torch.randn(1, prefix, channels))
        self.blocks = nn.ModuleList(Mixing(channels) for _ in range(2))
        self.fc = nn.Linear(channels, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x[:, 0])


class Mixing(nn.Module):
    """x + mix(norm1(x)): every token sees every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, 2)
        return x + (q @ k.transpose(1, 2)).softmax(2) @ v


class Attending(nn.Module):
    """A vision transformer of two blocks with two heads: patches of 4 x 4, a class token, no positions."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.patches, self.fc = nn.Conv2d(3, channels, 4, 4), nn.Linear(channels, 4)
        self.first = nn.Parameter(torch.randn(1, 1, channels))
        self.blocks = nn.Sequential(Attention(channels), Attention(channels))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        return self.fc(self.blocks(torch.cat([self.first.expand(len(x), -1, -1), x], 1))[:, 0])


class Attention(nn.Module):
    """x + attention(norm1(x)), then x + tanh(linear(x))."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.norm1, self.qkv, self.heads = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels), heads
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, 2))
        x = x + F.scaled_dot_product_attention(4 * q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(x).tanh()


class ChannelsLast(nn.Module):
    """A patch embedding, then [B,h,w,C] as Swin has it; ends in norm, mean and one linear map."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.patches, self.fc = nn.Conv2d(3, channels, 4, 4), nn.Linear(channels, 4)
        self.norm1, self.mix, self.norm = nn.LayerNorm(channels), nn.Linear(channels, channels), nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).permute(0, 2, 3, 1)
        x = x + self.mix(self.norm1(x)).tanh()
        return self.fc(self.norm(x).mean((1, 2)))


class Positions(nn.Module):
    """Convolutions alone: scores [B,K,h,w], one linear map of `features` at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, 8, 1), nn.Tanh())
        self.fc = nn.Conv2d(5, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


@dataclass(frozen=True)
class Halves:
    """model: what is probed at `layer`. head(stem(images)) is the same function of the images."""

    model: nn.Module
    layer: str
    stem: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    size: int = 32

    def images(self, count: int, seed: int = 0) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        return torch.randn(count, 3, self.size, self.size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gap(signed: bool = False, classes: int = 4) -> Halves:
    torch.manual_seed(1)
    model = Gap(classes, signed=signed).double().eval()
    settle_batch_norm(model)
    return Halves(
        model, "features", lambda x: model.features(model.stem(x.clone())), lambda a: model.fc(a.mean((2, 3)))
    )


def attending() -> Halves:
    """A transformer, to be looked at where its last block begins; for what attention alone explains."""
    torch.manual_seed(6)
    model = Attending().double().eval()
    return Halves(model, "blocks.1.norm1", lambda x: x, model)


def placing() -> Halves:
    """A network whose head tells foreground, place by place."""
    base = gap().model
    body = nn.Sequential(base.stem, base.features)
    torch.manual_seed(7)
    model = Foreground(body, 5, 4).double().eval()
    nn.init.normal_(model.foreground.weight)
    return Halves(model, "foreground", lambda x: model.foreground(body(x.clone())), lambda a: a.expand(-1, 4, -1, -1))


def suited(label: str) -> Halves:
    """A small network that a method applies to."""
    if label == "foreground":
        return placing()
    return attending() if "attentions" in catalogue.method(label, catalogue.spec("method", label)).takes else gap()


def in_place() -> Halves:
    torch.manual_seed(2)
    model = InPlace().double().eval()
    return Halves(
        model,
        "layer",
        lambda x: model.layer(model.stem(x).relu()),
        lambda a: model.fc(a.relu().mean((2, 3)).square()),
    )


def twice(call: int) -> Halves:
    torch.manual_seed(3)
    model = Twice().double().eval()
    first = lambda x: model.block(model.stem(x))  # noqa: E731
    last = lambda a: model.fc(a.sigmoid().square().mean((2, 3)))  # noqa: E731
    if call == 0:
        return Halves(model, "block@0", first, lambda a: last(model.block(a.tanh())))
    return Halves(model, "block@1", lambda x: model.block(first(x).tanh()), last)


def vgg11(layer: int = 19) -> Halves:
    """In-place ReLUs, two linear maps after the grid. Layer 18 is a convolution just before an in-place ReLU."""
    with torch.random.fork_rng(), torch.device("meta"):
        model = torchvision.models.vgg11(num_classes=7)
    model.classifier = nn.Sequential(nn.Linear(25088, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 7))
    model.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        parameter.data = torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5
    model.eval()
    plain = _without_in_place(model)
    head = nn.Sequential(*plain.features[layer + 1 :], plain.avgpool, nn.Flatten(), plain.classifier)
    return Halves(model, f"features.{layer}", plain.features[: layer + 1], head, size=64)


def resnet18(layer: str = "layer4") -> Halves:
    torch.manual_seed(5)
    model = torchvision.models.resnet18(num_classes=7).eval()
    settle_batch_norm(model)
    plain = _without_in_place(model)
    parts = [plain.conv1, plain.bn1, plain.relu, plain.maxpool, plain.layer1, plain.layer2, plain.layer3, plain.layer4]
    cut = 4 + int(layer[-1])
    head = nn.Sequential(*parts[cut:], plain.avgpool, nn.Flatten(), plain.fc)
    return Halves(model, layer, nn.Sequential(*parts[:cut]), head, size=64)


def densenet121() -> Halves:
    """As the zoo gives it, whose `features` end in the ReLU that torchvision's own `forward` applies."""
    with torch.random.fork_rng():
        network = torchvision_network("densenet121", None, num_classes=7)
    with torch.device("meta"):
        plain = torchvision.models.densenet121(num_classes=7).eval()
    weights = network.module.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()}, assign=True)
    return Halves(
        network.module,
        network.layer,
        lambda x: plain.features(x).relu(),
        lambda a: plain.classifier(a.mean((2, 3))),
        size=64,
    )


def mobilenet_v2() -> Halves:
    torch.manual_seed(6)
    model = torchvision.models.mobilenet_v2(num_classes=7).eval()
    settle_batch_norm(model)
    plain = _without_in_place(model)
    return Halves(model, "features", plain.features, lambda a: plain.classifier(a.mean((2, 3))), size=64)


def squeezenet1_1() -> Halves:
    torch.manual_seed(7)
    model = torchvision.models.squeezenet1_1(num_classes=7).eval()
    plain = _without_in_place(model)
    return Halves(model, "features", plain.features, lambda a: plain.classifier(a).flatten(1), size=64)


def naive_gradients(halves: Halves, images: Tensor, targets: list, image_index: list) -> Tensor:
    """[Q,C,h,w]: dS/dA of each case on its own, one image at a time, by plain autograd with everything differentiable.

    targets: classes, or functions of the head's output for one image [1,K] that return [1].
    """
    gradients = []
    stem = {b: halves.stem(images[b : b + 1].clone().requires_grad_()) for b in set(image_index)}
    for target, b in zip(targets, image_index):
        activation = stem[b]
        output = halves.head(activation.clone())
        score = target(output) if callable(target) else output[:, target]
        gradients.append(torch.autograd.grad(score.sum(), activation)[0][0])
    return torch.stack(gradients)


def hooked_gradients(model: nn.Module, layer: str, images: Tensor, targets: list[int]) -> tuple[Tensor, Tensor]:
    """What a layer gives and the gradient of each image's score there, as the layer has them, by a plain hook and a
    graph through the whole network."""
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output = model(images.clone().requires_grad_())
    handle.remove()
    scores = output[torch.arange(len(images)), targets]
    return seen[0].detach(), torch.autograd.grad(scores.sum(), seen[0])[0]


def network(halves: Halves, name: str = "tiny") -> Network:
    """The network as the suite's loops take it."""
    recipe = Preprocessing("warp", halves.size, None)
    return Network(name, halves.model, recipe, halves.layer, "0" * 16)


def batch(images: Tensor, classes: list[tuple[int, ...]]) -> Batch:
    """Images [B,3,H,W] with the classes asked of each; image ids `image0`, `image1`..."""
    size = tuple(images.shape[-2:])
    frame = Frame(size, size, (1.0, 1.0), (0.0, 0.0))
    samples = tuple(
        Sample(b, image, frame, annotation(f"image{b}", size, classes=asked), f"{b}")
        for b, (image, asked) in enumerate(zip(images, classes))
    )
    return Batch(images, samples)


def some_evidence(seed: int, cases: int = 3, channels: int = 4, height: int = 2, width: int = 3, **changes):
    """Activations and gradients of both signs, float64, with zeros in the gradients, as a method's `evidence`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (cases, channels, height, width)
    activations = torch.randn(shape, generator=generator, dtype=torch.float64)
    gradients = torch.randn(shape, generator=generator, dtype=torch.float64)
    gradients[torch.rand(shape, generator=generator) < 0.2] = 0
    return evidence_of(activations, gradients, **changes)


def evidence_of(activations: Tensor, gradients: Tensor, **changes):
    """A method's `evidence` from activations [B,C,h,w] and gradients [Q,C,h,w]; Q == B unless image_index is given."""
    from gradcam_bench.probe import Evidence

    given = SimpleNamespace(
        logits=torch.zeros(len(activations), 1, dtype=activations.dtype),
        image_index=torch.arange(len(gradients)),
        targets=torch.zeros(len(gradients), dtype=torch.int64),
        head=None,
    )
    vars(given).update(changes)
    return Evidence(given.logits, activations, gradients, given.image_index, given.targets, given.head)


def black(like: Tensor) -> Tensor:
    """[3,1,1], in the dtype of images."""
    return like.new_tensor(BLACK).reshape(3, 1, 1)


def view(**changes) -> View:
    return View(resize="none").but(**changes)


def _without_in_place(model: nn.Module) -> nn.Module:
    plain = deepcopy(model)
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return plain


def settle_batch_norm(model: nn.Module) -> None:
    """Running statistics of one random batch, so that random networks pass on signals of the order of one."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    dtype = next(model.parameters()).dtype
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype))
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
