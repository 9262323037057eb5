"""Two small multi-label networks for scenes: 224x224 RGB, ImageNet mean and std in, one logit a class out (sigmoid).

`scenes_gap` averages its last feature map and applies one linear layer, so CAM applies: logits = fc(mean over space of
layer4). `scenes_fc` flattens a 7x7 map into two fully connected layers, so CAM does not; Grad-CAM does.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from gradcam_bench.errors import unknown
from gradcam_bench.models import checkpoints
from gradcam_bench.models.network import Network, Preprocessing, fingerprint

WEIGHTS = Path(__file__).parent / "weights"


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut; ReLU last. [N,inner,h,w] -> [N,outer,h/s,w/s]."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


class ScenesGap(nn.Module):
    """Residual network whose last stage, `layer4`, is a non-negative 14x14 grid at stride 16."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.layer1 = Residual(16, 24, stride=2)
        self.layer2 = Residual(24, 48, stride=2)
        self.layer3 = Residual(48, 80, stride=2)
        self.layer4 = Residual(80, 128, stride=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N,3,224,224] -> [N,K] logits."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.avgpool(x).flatten(1))


class ScenesFc(nn.Module):
    """Plain network: `features` ends in ReLU then pool (7x7), `classifier` holds two fully connected layers."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 16, stride=2),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 48),
            *_convolution(48, 48),
            nn.MaxPool2d(2),
            *_convolution(48, 96),
            *_convolution(96, 64),
            nn.MaxPool2d(2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # changes nothing at 224x224
        self.classifier = nn.Sequential(
            nn.Linear(64 * 7 * 7, 96), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(96, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N,3,224,224] -> [N,K] logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _convolution(inner: int, outer: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)


def scenes_gap(num_classes: int = 10) -> ScenesGap:
    """The network to which CAM applies, untrained; its default layer is `layer4`."""
    return ScenesGap(num_classes)


def scenes_fc(num_classes: int = 10) -> ScenesFc:
    """The network to which CAM does not apply, untrained; its default layer is the last ReLU, `features.20`."""
    return ScenesFc(num_classes)


def scenes_network(name: str, weights: str | None = "DEFAULT", layer: str | None = None) -> Network:
    """`scenes_gap`, its twin `scenes_gap_permuted` (trained on permuted labels, which it knows by heart) or `scenes_fc`
    ready for use. weights: DEFAULT (those that come along), a local file, or none."""
    builders = {"scenes_gap": scenes_gap, "scenes_gap_permuted": scenes_gap, "scenes_fc": scenes_fc}
    if name not in builders:
        raise unknown("scenes network", name, builders)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # random weights are the same random weights every time
        module: nn.Module = builders[name]()
    packaged = WEIGHTS / f"{name}.safetensors"
    if weights not in (None, "none"):
        path = packaged if weights == "DEFAULT" else Path(str(weights)).expanduser()
        checkpoints.load(module, checkpoints.read(path), str(path))
    with safe_open(packaged, "pt") as file:
        facts = file.metadata()
    mean, std = (tuple(json.loads(facts[key])) for key in ("mean", "std"))
    recipe = Preprocessing("warp", int(facts["input_size"]), None, "bilinear", mean, std)
    classes = tuple(json.loads(facts["classes"]))
    look = layer or facts["default_layer"]
    digest = fingerprint(name, module)
    return Network(name, module.eval(), recipe, look, digest, "sigmoid", classes, untrained=builders[name])
