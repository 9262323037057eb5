"""From a signed heatmap at grid resolution to values that can be compared with pixels: rectify, resize, normalise.

Each function maps [..., h, w] float to [..., h, w] float and knows nothing else. No small constant is added to any
denominator, save under the name of those who do it: a map that cannot be normalised (constant, or nowhere positive)
becomes zeros, and is counted as degenerate.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size
from gradcam_bench.resampling import KERNELS, blur, resample

RECTIFY: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "none": lambda maps: maps, "abs": torch.abs}
EPSILON, SMALL = 1e-5, 1e-8  # what the authors of seeds, and torch-cam, add to a maximum
JPEG_QUALITY = 75  # of MATLAB's imwrite, and of libjpeg itself


def rectify(maps: Tensor, how: str) -> Tensor:
    """Maps [..., h, w] with their negative values dropped (`relu`), kept (`none`) or mirrored (`abs`)."""
    if how not in RECTIFY:
        raise unknown("rectify", how, RECTIFY)
    return RECTIFY[how](maps)


def normalize(maps: Tensor, how: str) -> Tensor:
    """Maps [..., h, w], each divided by its maximum (`max`), brought to [0, 1] (`minmax`), or untouched (`none`).

    A map with nothing to divide by (maximum <= 0, or constant) becomes zeros. Choe et al. 2020 use minmax,
    Zhou et al. 2016 and Selvaraju et al. 2017 max. `max_epsilon` divides by maximum + 1e-5, as seeds are made (Ahn and
    Kwak 2018, Ahn et al. 2019): a map of maximum m peaks at m / (m + 1e-5), so that one of m < 1e-5 hardly rises.
    `minmax_epsilon` does so with 1e-8 after the minimum is taken off, as torch-cam.
    """
    if how == "none":
        return maps
    top = maps.amax((-2, -1), keepdim=True)
    if how == "max":
        return torch.where(top > 0, maps / top.where(top > 0, 1.0), 0.0)
    if how == "max_epsilon":
        return torch.where(top > 0, maps / (top + EPSILON).where(top > 0, 1.0), 0.0)
    if how in ("minmax", "minmax_epsilon"):
        low = maps.amin((-2, -1), keepdim=True)
        span = top - low
        small = 0.0 if how == "minmax" else SMALL
        return torch.where(span > 0, (maps - low) / (span + small).where(span > 0, 1.0), 0.0)
    raise unknown("normalize", how, ("minmax", "max", "none", "max_epsilon", "minmax_epsilon"))


def resize(maps: Tensor, size: Size, kernel: str = "bilinear") -> Tensor:
    """Maps [..., h, w] resampled to [..., H, W] by one of `resampling.KERNELS`."""
    if kernel not in KERNELS:
        raise unknown("resize", kernel, KERNELS)
    return resample(maps, size, kernel)


def resize_quantized(maps: Tensor, size: Size, kernel: str = "bilinear") -> Tensor:
    """Normalised maps [..., h, w] to 8 bits, resampled to [..., H, W], and rounded to 8 bits again, as a program
    does that resizes a uint8 image: float, whole multiples of 1/255."""
    return resize(quantize(maps, "uint8").float(), size, kernel).round().clamp(0, 255) / 255


def smooth(maps: Tensor, share: float) -> Tensor:
    """Maps [..., H, W] blurred by a Gaussian whose deviation is a share of the longer side, cut off at four of them.

    The border's values go on beyond it, as where TorchRay smooths gradients (Fong et al. 2019; `saliency`, `imsmooth`).
    """
    sigma = share * max(maps.shape[-2:])
    return blur(maps, sigma, math.ceil(4 * sigma), "edge")


def quantize(maps: Tensor, how: str) -> Tensor:
    """Normalised maps [..., H, W] -> uint8 levels of the same shape, so that `level > t` is `value > threshold t`.

    `uint8`: 255 * value, truncated, as wsolevaluation does; threshold f stands for the level int(255 f).
    `percent`: the number of whole percents strictly below the value, so that level > t exactly where value > t / 100.
    `jpeg`: 255 * value, rounded, out of a grey JPEG file of quality 75, as Zhou et al. 2016 keep their maps.
    """
    if how == "uint8":
        return (maps.clamp(0, 1) * 255).to(torch.uint8)
    if how == "percent":
        percents = torch.arange(100, dtype=torch.float64).div(100).to(maps.dtype)
        return torch.bucketize(maps.contiguous(), percents.to(maps.device)).to(torch.uint8)
    if how == "jpeg":
        pictures = (maps.clamp(0, 1) * 255).round().to(torch.uint8)
        files = [_through_jpeg(one.numpy()) for one in pictures.reshape(-1, *maps.shape[-2:]).cpu()]
        return torch.from_numpy(np.stack(files)).reshape(maps.shape) if files else pictures
    raise unknown("quantize", how, ("uint8", "percent", "jpeg"))


def _through_jpeg(levels: np.ndarray) -> np.ndarray:
    """What is left of a grey picture, uint8 [H,W], in a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.array(Image.open(file))


def level(threshold: float, how: str) -> int:
    """The integer level that stands for a fixed threshold in [0, 1] on the grid `how` of `quantize`."""
    if how in ("uint8", "jpeg"):
        return int(255 * threshold)
    percent = round(100 * threshold)
    if abs(percent - 100 * threshold) > 1e-9:
        raise UserError(f"threshold {threshold} is no whole percent: use protocol.quantize=uint8, or a whole percent")
    return percent


def fraction(level: float, how: str) -> float:
    """The threshold, a fraction of the normalised map, that an integer level stands for on the grid `how`."""
    return level / (100 if how == "percent" else 255)


def degenerate(maps: Tensor, how: str = "none") -> list[str | None]:
    """Why each of maps [U,h,w] says nothing: `not finite`, or once rectified `constant`, `nowhere positive`; else None.

    What is not finite is found before rectification, whose ReLU would make a zero of minus infinity.
    """
    seen, reasons = rectify(maps, how), list[str | None]()
    for finite, low, top in zip(
        maps.isfinite().flatten(1).all(1).tolist(), seen.amin((1, 2)).tolist(), seen.amax((1, 2)).tolist(), strict=True
    ):
        reasons.append(
            "not finite" if not finite else "constant" if low == top else "nowhere positive" if top <= 0 else None
        )
    return reasons
