"""The eyes of the captioner and the answerer: what they hand over of a scene, and the grid that Grad-CAM explains.

`scenes_gap`'s layers as they are, which know shapes, times what a small network beside them learns of the colours of
patches, place by place (a bilinear network of low rank; Lin et al. 2015, Kim et al. 2017); then one more convolution,
`look`. Of each of its channels the eyes hand over four numbers, the logarithms of its means weighted towards the left,
the right, the top and the bottom: their level says how much of it there is, their differences where, whatever its size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradcam_bench.models.scenes_nets import ScenesGap

CHANNELS, COLOURS = 256, 32  # of `look`, of colours before it
SEEN = 4 * CHANNELS  # numbers that are handed over
FAINT = 0.02  # of a mean over the grid: what is far below counts as nothing


class Eyes(nn.Module):
    """[N,3,224,224] -> [N,SEEN]: what there is, and where, in `look`, a non-negative 14x14 grid."""

    def __init__(self) -> None:
        super().__init__()
        net = ScenesGap()
        self.shapes = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
        self.patches = nn.AvgPool2d(4)
        self.colours = nn.Sequential(*_convolution(3, COLOURS), *_convolution(COLOURS, COLOURS), nn.AvgPool2d(4))
        self.what, self.paint = (nn.Sequential(*_convolution(inner, CHANNELS)) for inner in (128, COLOURS))
        self.look = nn.Sequential(*_convolution(CHANNELS, CHANNELS))
        self.even = nn.BatchNorm1d(SEEN)

    def forward(self, images: Tensor) -> Tensor:
        return self.join(self.shapes(images), self.patches(images))

    def join(self, shapes: Tensor, patches: Tensor) -> Tensor:
        """What is seen [N,SEEN], of a grid of shapes [N,128,14,14] and the means of patches [N,3,56,56]."""
        grid = self.look(self.what(shapes) * self.paint(self.colours(patches)))
        means = grid.flatten(2) @ sides(grid)
        return self.even((means.flatten(1).to(self.even.weight.dtype) / FAINT).log1p())


def sides(grid: Tensor) -> Tensor:
    """[h*w,4]: weights of a mean over a grid [N,C,h,w] that rise to the left, the right, the top and the bottom. The
    first two add up to the plain mean, so do the others."""
    y, x = (torch.linspace(0, 1, size, device=grid.device, dtype=grid.dtype) for size in grid.shape[2:])
    down, along = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([1 - along, along, 1 - down, down], -1).flatten(0, 1) / (len(y) * len(x))


def _convolution(inner: int, outer: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
