"""Controls: heatmaps that know nothing of the network. What does not beat them explains nothing.

At the input's resolution; shape is (Q, H, W): the number of cases and the input's height and width; images [Q,3,H,W]
are the cases' inputs as fed to the network, normalised, or in [0, 1] where there is none.
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
    """1 everywhere, [Q,H,W]: degenerate by definition; what a metric gives it is what it gives to no answer at all."""
    return torch.ones(shape)


def edges(images: Tensor) -> Tensor:
    """sqrt(g_x^2 + g_y^2) of the mean over channels, g by Sobel's 3x3 kernels, borders repeated, [Q,H,W].

    An edge detector, as Adebayo et al. 2018 (section 5) set beside explanations: it depends on the picture alone.
    """
    grey = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    found = F.conv2d(grey, torch.stack([across, across.T])[:, None])  # [Q,2,H,W]
    return found.square().sum(1).sqrt()


def input_intensity(images: Tensor) -> Tensor:
    """Mean over channels of the input as it is fed, signed, [Q,H,W].

    After ImageNet's normalisation 0 is its mean colour and what is brighter lies above. It is what input x gradient
    shows where gradients say nothing (Adebayo et al. 2018, section 5).
    """
    return images.float().mean(1)
