"""Classifiers taken apart for mosaics, so that a cell's scores cannot depend on the other cells: DiFull and DiPart.

Rao, Böhle and Schiele 2022, sec. 3.1: on a mosaic of side x side pictures each cell has a classification head of its
own. DiFull lets no cell see another at all: the whole network runs on each cell alone. DiPart shares the layers before
the pool, whose windows overlap the seams, and disconnects the heads only. An attribution outside the cell is then
wrong by construction. Their mosaics show one class in the first and in the last cell, and only these two are asked
for: `dataset=grids dataset.disconnected=true`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models.network import Network, fingerprint

PARTS = ("full", "part")
# Of an architecture, by the beginning of its name: what comes before the pool, by module, and what comes after.
TRUNKS = {
    "resnet": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "scenes_gap": ("stem", "layer1", "layer2", "layer3", "layer4"),
}
TRUNKS |= {"resnext": TRUNKS["resnet"], "wide_resnet": TRUNKS["resnet"]}


def disconnected_network(network: Any, parts: str = "full", side: int = 2) -> Network:
    """The same network for mosaics of side x side of its inputs, [B,3,side*H,side*W]; its layer is `grid`, the cells'
    last grids side by side [B,C,side*h,side*w].

    parts: full (DiFull) or part (DiPart). Outputs [B,side*side*K]: output n*K + k is class k by the head of cell n, in
    reading order; probabilities are over all of them. Raises UserError for architectures without a plain trunk.
    """
    if not isinstance(network, Network):
        raise UserError("model.network is missing: choose a network, as model@model.network=resnet18")
    if parts not in PARTS:
        raise unknown("model.parts", parts, PARTS)
    if side < 1:
        raise UserError(f"model.side={side}: a whole number from 1 on is needed")
    trunk, head = halves(network.module, network.name)
    module = Disconnected(trunk, head, side, parts == "full")
    name = f"{network.name}_di{parts}"
    classes = network.classes and tuple(f"{name} in cell {n}" for n in range(side**2) for name in network.classes)
    digest = fingerprint(f"{name}{side}", module)
    usual = network.preprocessing
    size, crop = (length and length * side for length in (usual.size, usual.crop))
    return Network(
        name, module.eval(), replace(usual, size=size, crop=crop), "grid", digest, network.activation, classes
    )


def halves(module: Any, name: str) -> tuple[nn.Module, nn.Module]:
    """(images -> the last grid [B,C,h,w], that grid -> logits [B,K]) of a classifier, of its own modules."""
    if name.endswith("_convolutional"):
        raise UserError(f"model=disconnected: {name} scores several places by itself already")
    for prefix, parts in TRUNKS.items():
        if name.startswith(prefix):
            return nn.Sequential(*(getattr(module, part) for part in parts)), _head(module.avgpool, module.fc)
    if name.startswith("squeezenet"):  # its classifier is a convolution and the pool
        return module.features, _head(module.classifier)
    if name.startswith(("mobilenet_v2", "densenet")):  # whose pool is a function
        return module.features, _head(nn.AdaptiveAvgPool2d(1), module.classifier)
    if name.startswith(("mobilenet_v3", "efficientnet")):
        return module.features, _head(module.avgpool, module.classifier)
    if name.startswith(("vgg", "alexnet", "scenes_fc")):  # whose grid is what the last ReLU gives, before its pool
        return module.features[:-1], _head(nn.Sequential(module.features[-1], module.avgpool), module.classifier)
    raise UserError(
        f"model=disconnected: {name} has no trunk that is known; there are {', '.join(TRUNKS)}, squeezenet, mobilenet, "
        "densenet, vgg, alexnet, efficientnet, scenes_fc"
    )


def _head(*layers: nn.Module) -> nn.Module:
    """Layers in a row, flattened before the first linear map."""
    pooled, *rest = layers
    return nn.Sequential(pooled, nn.Flatten(), *rest)


class Disconnected(nn.Module):
    """A trunk and a head, the head once for each cell. full: the trunk too."""

    def __init__(self, trunk: nn.Module, head: nn.Module, side: int, full: bool) -> None:
        super().__init__()
        self.trunk, self.head, self.side, self.full = trunk, head, side, full
        self.grid = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,side*H,side*W] -> [B,side*side*K]."""
        if any(length % self.side for length in images.shape[2:]):
            raise ValueError(f"{tuple(images.shape[2:])} pixels are no {self.side}x{self.side} cells")
        grid = self._by_cell(self.trunk, images, _joined) if self.full else self.trunk(images)
        return self._by_cell(self.head, self.grid(grid), lambda logits, _: logits.flatten(1))

    def _by_cell(self, half: nn.Module, whole: Tensor, join: Callable[[Tensor, int], Tensor]) -> Tensor:
        """What `half` gives for each cell [B*cells,...], joined from [B,cells,...]."""
        batch, channels, height, width = whole.shape
        rows, columns = height // self.side, width // self.side
        cells = whole.reshape(batch, channels, self.side, rows, self.side, columns).permute(0, 2, 4, 1, 3, 5)
        given = half(cells.reshape(-1, channels, rows, columns))
        return join(given.unflatten(0, (batch, self.side**2)), self.side)


def _joined(cells: Tensor, side: int) -> Tensor:
    """[B,side*side,C,h,w] -> [B,C,side*h,side*w]."""
    batch, _, channels, height, width = cells.shape
    laid = cells.reshape(batch, side, side, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return laid.reshape(batch, channels, side * height, side * width)
