"""Controls: heatmaps that know nothing of the network. What does not beat them explains nothing.

At the input's resolution; images [Q,3,H,W] is each case's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def center(images: Tensor, sigma: float = 0.5) -> Tensor:
    """exp(-r^2 / 2 s^2), r the distance to pixel (W/2, H/2) and s = sigma * min(H, W): an isotropic Gaussian, [Q,H,W].

    The `center` baseline of Choe et al. 2020 and of the pointing game (Zhang et al. 2016). Every level set is a disc,
    so with an oracle threshold sigma plays no part while the levels are fine enough (s >= 60 at 224 pixels).
    """
    count, _, height, width = images.shape
    y = torch.arange(height, device=images.device, dtype=torch.float32) - height // 2
    x = torch.arange(width, device=images.device, dtype=torch.float32) - width // 2
    squared = y[:, None] ** 2 + x[None, :] ** 2
    return torch.exp(-squared / (2 * (sigma * min(height, width)) ** 2)).expand(count, -1, -1)


def noise(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Independent uniform numbers in [0, 1) a pixel, [Q,H,W], one generator a case."""
    _, _, height, width = images.shape
    maps = [torch.rand(height, width, generator=generator) for generator in generators]
    return torch.stack(maps).to(images.device) if maps else images.new_zeros((0, height, width))
