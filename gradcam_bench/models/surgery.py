"""Classifiers made over for training: a new head, or another end whose scores are global averages of a last grid.

    none              the network as it is
    foreground        VGG, ResNet (layer4 at stride 1) and the demo's network up to the last grid; one 1x1 convolution
                      that tells foreground from background.  The few-shot baseline of Choe et al. 2020
    head              the last linear map or 1x1 convolution anew, with as many outputs as there are classes
    gap               VGG, AlexNet, GoogLeNet cut behind conv5-3, conv5, inception4e; then 1024 3x3 convolutions, ReLU,
                      global average pooling, a linear map.  Zhou et al. 2016, section 3 (VGG: also Choe et al. 2020)
    wsol_resnet       ResNet, layer4 at stride 1 (14x14 of 224 pixels), new linear head.  Choe et al. 2020
    wsol_resnet_28    the same, layer3 at stride 1 too (28x28: their "large feature map")
    wsol_inception    Inception v3 up to Mixed_6e at 14x14, two 3x3 convolutions, a 1x1 one, averaged.  Choe et al. 2020
    irn               ResNet, layer4 at stride 1 (stride 16 in all), averaged, a linear map without bias: the same as
                      their 1x1 convolution behind the average.  Ahn et al. 2019

No network is trained here; new layers are random, everything else keeps its weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench.errors import UserError, unknown

WIDTH = 1024  # channels of the convolutions that go before global average pooling, in both papers
HEAD_DEVIATION = 0.01  # of a new linear map's weights; its bias is 0


@dataclass(frozen=True)
class Operated:
    """module: the network made over. new: the names of the modules whose weights are random. layer: its target layer,
    None where that is still the architecture's own."""

    module: nn.Module
    new: tuple[str, ...]
    layer: str | None = None


def operate(name: str, module: nn.Module, architecture: str, classes: int) -> Operated:
    """The network after the surgery `name`, changed in place as far as it lives on. architecture: its name, `vgg16`.

    Auxiliary heads of GoogLeNet and Inception are taken off in any case. Raises UserError for an architecture that the
    surgery is not known for.
    """
    if name not in SURGERIES:
        raise unknown("recipe.surgery", name, SURGERIES)
    for head in ("aux1", "aux2", "AuxLogits"):
        if isinstance(getattr(module, head, None), nn.Module):
            setattr(module, head, None)
    if hasattr(module, "aux_logits"):
        module.aux_logits = False  # type: ignore[assignment]
    return SURGERIES[name](module, architecture, classes)


def _none(module: nn.Module, architecture: str, classes: int) -> Operated:
    return Operated(module, ())


def new_head(module: nn.Module, architecture: str, classes: int, bias: bool = True) -> Operated:
    """The head anew: timm's own where there is one, else the last linear map or 1x1 convolution in the network."""
    if hasattr(module, "reset_classifier") and hasattr(module, "get_classifier"):
        module.reset_classifier(classes)  # type: ignore[operator]
        heads = module.get_classifier()  # type: ignore[operator]  # of a distilled network two
        made = heads if isinstance(heads, tuple) else (heads,)
        found = tuple(name for name, one in module.named_modules() if any(one is head for head in made))
        for name in found:
            _draw(module.get_submodule(name))
        return Operated(module, found)
    name = _head(module, architecture)
    old: Any = module.get_submodule(name)
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, classes, bias=bias and old.bias is not None)
    else:
        new = nn.Conv2d(old.in_channels, classes, 1, bias=bias and old.bias is not None)
    _draw(new)
    module.set_submodule(name, new)
    if hasattr(module, "num_classes"):
        module.num_classes = classes  # type: ignore[assignment]
    return Operated(module, (name,))


def _head(module: nn.Module, architecture: str) -> str:
    """The name of the last module that can be a head."""
    found = [
        name
        for name, one in module.named_modules()
        if isinstance(one, nn.Linear) or (isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1) and one.groups == 1)
    ]
    if not found or not found[-1]:
        raise UserError(f"recipe.surgery=head: {architecture} has no linear map and no 1x1 convolution to replace")
    return found[-1]


def _draw(head: nn.Module) -> None:
    """Random weights from a narrow normal distribution, as new heads on trained networks begin; bias 0."""
    for part in head.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.normal_(part.weight, std=HEAD_DEVIATION)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class Gap(nn.Module):
    """`features`, a 3x3 convolution `conv6`, ReLU `relu` (the target layer), `avgpool`, linear `fc`.

    [B,3,H,W] -> [B,K]. The released prototxt of the VGG has dropout before `fc`, wsolevaluation's network has none;
    here there is none.
    """

    def __init__(self, features: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.conv6 = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTH, classes)
        _draw_convolution(self.conv6)
        _draw(self.fc)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.relu(self.conv6(self.features(images)))).flatten(1))


def _draw_convolution(module: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _gap(module: nn.Module, architecture: str, classes: int) -> Operated:
    if architecture.startswith(("vgg", "alexnet")):
        features, channels = nn.Sequential(*list(module.features)[:-1]), 256  # type: ignore[arg-type]
        channels = 512 if architecture.startswith("vgg") else channels
    elif architecture == "googlenet":
        features, channels = _up_to(module, "inception4e"), 832
    else:
        raise UserError(f"recipe.surgery=gap is known for vgg*, alexnet and googlenet, not for {architecture}")
    return Operated(Gap(features, channels, classes), ("conv6", "fc"), "relu")


class Recentred(nn.Module):
    """Pixels normalised by ImageNet's mean and deviation -> by 0.5 and 0.5, as Google's networks were trained on; what
    torchvision's GoogLeNet and Inception do first where `transform_input` is set."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("scale", (std / 0.5)[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - 0.5) / 0.5)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def _up_to(module: nn.Module, last: str) -> nn.Sequential:
    """The children up to and with `last`, one after the other, under their own names."""
    parts: list[tuple[str, nn.Module]] = [("recentred", Recentred())] if getattr(module, "transform_input", 0) else []
    for name, part in module.named_children():
        parts.append((name, part))
        if name == last:
            break
    return nn.Sequential(OrderedDict(parts))


def _wsol_resnet(module: nn.Module, architecture: str, classes: int) -> Operated:
    return new_head(_at_stride_1(module, architecture, "layer4"), architecture, classes)


def _wsol_resnet_28(module: nn.Module, architecture: str, classes: int) -> Operated:
    return new_head(_at_stride_1(module, architecture, "layer3", "layer4"), architecture, classes)


def _irn(module: nn.Module, architecture: str, classes: int) -> Operated:
    return new_head(_at_stride_1(module, architecture, "layer4"), architecture, classes, bias=False)


def _at_stride_1(module: nn.Module, architecture: str, *stages: str) -> nn.Module:
    """A torchvision ResNet whose stages do not halve their grid; no dilation makes up for it, as in both papers."""
    if not architecture.startswith(("resnet", "resnext", "wide_resnet")):
        raise UserError(f"this surgery is known for resnet*, resnext* and wide_resnet*, not for {architecture}")
    for stage in stages:
        for part in module.get_submodule(stage).modules():
            if isinstance(part, nn.Conv2d):
                part.stride = (1, 1)
    return module


class Mixed6a(nn.Module):
    """Inception's Mixed_6a (torchvision's modules, by their names) at stride 1 with padding, so that the grid stays."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.branch3x3, self.branch3x3dbl_1 = old.branch3x3, old.branch3x3dbl_1
        self.branch3x3dbl_2, self.branch3x3dbl_3 = old.branch3x3dbl_2, old.branch3x3dbl_3
        for part in (self.branch3x3, self.branch3x3dbl_3):
            part.conv.stride, part.conv.padding = (1, 1), (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), deep, F.max_pool2d(x, 3, 1, 1)], 1)


def _wsol_inception(module: nn.Module, architecture: str, classes: int) -> Operated:
    if architecture != "inception_v3":
        raise UserError(f"recipe.surgery=wsol_inception is known for inception_v3, not for {architecture}")
    parts = dict(_up_to(module, "Mixed_6e").named_children())
    parts["Conv2d_1a_3x3"].conv.padding = (1, 1)  # type: ignore[union-attr]
    parts |= {pool: nn.MaxPool2d(3, 2, 1, ceil_mode=True) for pool in ("maxpool1", "maxpool2")}
    parts["Mixed_5d"] = nn.Sequential(
        OrderedDict(grid=parts["Mixed_5d"], maxpool=nn.MaxPool2d(3, 2, ceil_mode=True))  # 28x28 -> 14x14
    )
    parts["Mixed_6a"] = Mixed6a(parts["Mixed_6a"])
    parts["SPG_A3_1b"], parts["SPG_A3_2b"] = _convolved(768), _convolved(WIDTH)
    parts["dropout"], parts["SPG_A4"] = nn.Dropout(0.5), nn.Conv2d(WIDTH, classes, 1)
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    _draw(parts["SPG_A4"])
    return Operated(nn.Sequential(OrderedDict(parts)), ("SPG_A3_1b", "SPG_A3_2b", "SPG_A4"), "SPG_A3_2b")


def _convolved(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, WIDTH, 3, padding=1)
    _draw_convolution(convolution)
    return nn.Sequential(nn.Dropout(0.5), convolution, nn.ReLU())


class Foreground(nn.Module):
    """`body`, then a 1x1 convolution `foreground` (the target layer) to one channel: the logit of foreground, place by
    place. [B,3,H,W] -> [B,K,h,w], the same for every class."""

    def __init__(self, body: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.body = body
        self.foreground = nn.Conv2d(channels, 1, 1)
        _draw(self.foreground)

    def forward(self, images: Tensor) -> Tensor:
        return self.foreground(self.body(images)).expand(-1, self.classes, -1, -1)


def _foreground(module: nn.Module, architecture: str, classes: int) -> Operated:
    if architecture.startswith("vgg"):
        body, channels = nn.Sequential(*list(module.features)[:-1]), 512  # type: ignore[arg-type]
    elif architecture.startswith("scenes_gap"):
        body, channels = _up_to(module, "layer4"), module.fc.in_features  # type: ignore[union-attr,assignment]
    else:
        body, channels = _up_to(_at_stride_1(module, architecture, "layer4"), "layer4"), module.fc.in_features  # type: ignore[union-attr,assignment]
    return Operated(Foreground(body, channels, classes), ("foreground",), "foreground")


SURGERIES: dict[str, Callable[[nn.Module, str, int], Operated]] = {
    "none": _none,
    "head": new_head,
    "gap": _gap,
    "wsol_resnet": _wsol_resnet,
    "wsol_resnet_28": _wsol_resnet_28,
    "wsol_inception": _wsol_inception,
    "irn": _irn,
    "foreground": _foreground,
}
