"""From a signed heatmap at grid resolution to values that can be compared with pixels: rectify, normalise, resize.

Each function maps [..., h, w] float to [..., h, w] float and knows nothing else. No small constant is added to any
denominator: a map that cannot be normalised (constant, or nowhere positive) becomes zeros, and is
counted as degenerate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size

RECTIFY: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "none": lambda maps: maps, "abs": torch.abs}

# OpenCV's INTER_CUBIC and PyTorch's bicubic are one kernel: a = -0.75, half-pixel centres, replicated borders.
KERNELS = {"bilinear": "bilinear", "bicubic": "bicubic", "cubic_cv2": "bicubic", "nearest": "nearest-exact"}


def rectify(maps: Tensor, how: str) -> Tensor:
    """Maps [..., h, w] with their negative values dropped (`relu`), kept (`none`) or mirrored (`abs`)."""
    if how not in RECTIFY:
        raise unknown("rectify", how, RECTIFY)
    return RECTIFY[how](maps)


def normalize(maps: Tensor, how: str) -> Tensor:
    """Maps [..., h, w], each divided by its maximum (`max`), brought to [0, 1] (`minmax`), or untouched (`none`).

    A map with nothing to divide by (maximum <= 0, or constant) becomes zeros. Choe et al. 2020 use minmax,
    Zhou et al. 2016 and Selvaraju et al. 2017 max.
    """
    if how == "none":
        return maps
    top = maps.amax((-2, -1), keepdim=True)
    if how == "max":
        return torch.where(top > 0, maps / top.where(top > 0, 1.0), 0.0)
    if how == "minmax":
        low = maps.amin((-2, -1), keepdim=True)
        span = top - low
        return torch.where(span > 0, (maps - low) / span.where(span > 0, 1.0), 0.0)
    raise unknown("normalize", how, ("minmax", "max", "none"))


def resize(maps: Tensor, size: Size, kernel: str = "bilinear") -> Tensor:
    """Maps [..., h, w] resampled to [..., H, W] (half-pixel centres, no anti-aliasing), `cubic_cv2` as OpenCV does."""
    if kernel not in KERNELS:
        raise unknown("resize", kernel, KERNELS)
    if maps.shape[-2:] == tuple(size):
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    mode = KERNELS[kernel]
    align = None if mode == "nearest-exact" else False
    return F.interpolate(flat, size=tuple(size), mode=mode, align_corners=align).reshape(*maps.shape[:-2], *size)


def quantize(maps: Tensor, how: str) -> Tensor:
    """Normalised maps [..., H, W] -> uint8 levels of the same shape, so that `level > t` is `value > threshold t`.

    `uint8`: 255 * value, truncated, as wsolevaluation does; threshold f stands for the level int(255 f).
    `percent`: the number of whole percents strictly below the value, so that level > t exactly where value > t / 100.
    """
    if how == "uint8":
        return (maps.clamp(0, 1) * 255).to(torch.uint8)
    if how == "percent":
        percents = torch.arange(100, dtype=torch.float64).div(100).to(maps.dtype)
        return torch.bucketize(maps.contiguous(), percents.to(maps.device)).to(torch.uint8)
    raise unknown("quantize", how, ("uint8", "percent"))


def level(threshold: float, how: str) -> int:
    """The integer level that stands for a fixed threshold in [0, 1] on the grid `how` of `quantize`."""
    if how == "uint8":
        return int(255 * threshold)
    percent = round(100 * threshold)
    if abs(percent - 100 * threshold) > 1e-9:
        raise UserError(f"threshold {threshold} is no whole percent: use protocol.quantize=uint8, or a whole percent")
    return percent


def degenerate(maps: Tensor) -> list[str | None]:
    """Why each of maps [U,h,w], rectified, says nothing: `not finite`, `constant`, `nowhere positive`; else None."""
    reasons: list[str | None] = []
    for finite, low, top in zip(
        maps.isfinite().flatten(1).all(1).tolist(), maps.amin((1, 2)).tolist(), maps.amax((1, 2)).tolist(), strict=True
    ):
        reasons.append(
            "not finite" if not finite else "constant" if low == top else "nowhere positive" if top <= 0 else None
        )
    return reasons
