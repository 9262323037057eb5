"""Controls: heatmaps that know nothing of the network. What does not beat them explains nothing.

At the input's resolution; shape is (Q, H, W): the number of cases and the input's height and width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def center(shape: tuple[int, int, int], sigma: float = 0.5) -> Tensor:
    """exp(-r^2 / 2 s^2), r the distance to pixel (W/2, H/2) and s = sigma * min(H, W): an isotropic Gaussian, [Q,H,W].

    The `center` baseline of Choe et al. 2020 and of the pointing game (Zhang et al. 2016). Every level set is a disc,
    so with an oracle threshold sigma plays no part while the levels are fine enough (s >= 60 at 224 pixels).
    """
    return _gaussian(*shape[1:], sigma).expand(shape[0], -1, -1)


@functools.lru_cache(maxsize=8)
def _gaussian(height: int, width: int, sigma: float) -> Tensor:
    y = torch.arange(height, dtype=torch.float32) - height // 2
    x = torch.arange(width, dtype=torch.float32) - width // 2
    squared = y[:, None] ** 2 + x[None, :] ** 2
    return torch.exp(-squared / (2 * (sigma * min(height, width)) ** 2))


def noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Independent uniform numbers in [0, 1) a pixel, [Q,H,W], one generator a case."""
    maps = [torch.rand(shape[1:], generator=generator) for generator in generators]
    return torch.stack(maps) if maps else torch.zeros(shape)


def constant(shape: tuple[int, int, int]) -> Tensor:
    """One everywhere, [Q,H,W]: no place before another. Degenerate by definition, and counted as such in a run; what a
    metric gives it is what that metric gives to no information at all."""
    return torch.ones(shape)


def edges(images: Tensor) -> Tensor:
    """Sobel gradient magnitude sqrt(gx^2 + gy^2) of the mean over channels of images [Q,3,H,W] as fed, [Q,H,W] >= 0.

    gx correlates with [[-1,0,1],[-2,0,2],[-1,0,1]], gy with its transpose, unscaled; the border is repeated outwards.
    The edge detector that Adebayo et al. 2018 (section 1) set beside saliency maps.
    """
    grey = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    gx, gy = F.conv2d(grey, torch.stack([across, across.T])[:, None]).unbind(1)
    return torch.hypot(gx, gy)


def input_intensity(images: Tensor) -> Tensor:
    """Mean over channels of images [Q,3,H,W] as fed, [Q,H,W]: the brighter, the higher, signed.

    As fed is after the network's normalisation, so that zero is about the mean grey of its training images.
    """
    return images.float().mean(1)
