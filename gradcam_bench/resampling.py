"""How maps are resampled: PyTorch's kernels, and the cubic ones of the programs that published recipes were run in;
and how maps and images are blurred.

All have half-pixel centres save `bilinear_corners`, and none smooths before it shrinks a map save `cubic_matlab`.

    bilinear, nearest       PyTorch's; OpenCV's INTER_LINEAR on floats is the same
    bilinear_corners        bilinear with the centres of the corner pixels kept in place (align_corners)
    bicubic, cubic_cv2      a = -0.75, borders replicated: PyTorch's bicubic is OpenCV's INTER_CUBIC
    cubic_matlab            MATLAB's imresize: a = -0.5, borders mirrored, stretched (anti-aliasing) where it shrinks
    cubic_skimage           scikit-image 0.11 to 0.18, transform.resize(order=3, mode='nearest'): a = -0.5, borders
                            replicated, values clipped to the map's own range
    spline                  the same call from 0.19 on, of a map that grows: SciPy's cubic spline, clipped likewise
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.errors import unknown
from gradcam_bench.geometry import Size

KERNELS = ("bilinear", "bilinear_corners", "bicubic", "cubic_cv2", "cubic_matlab", "cubic_skimage", "spline", "nearest")
TORCH = {"cubic_cv2": "bicubic", "bilinear_corners": "bilinear", "nearest": "nearest-exact"}
BORDERS = ("mirror", "edge", "zero")


def resample(maps: Tensor, size: Size, kernel: str) -> Tensor:
    """Maps [..., h, w] float resampled to [..., H, W] by one of KERNELS."""
    if maps.shape[-2:] == tuple(size):
        return maps
    if kernel == "cubic_matlab":
        return _separable(maps, size, antialias=True, mirror=True)
    if kernel in ("cubic_skimage", "spline"):
        low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
        made = _spline(maps, size) if kernel == "spline" else _separable(maps, size, antialias=False, mirror=False)
        return made.maximum(low).minimum(high)
    mode = TORCH.get(kernel, kernel)
    align = None if mode == "nearest-exact" else kernel == "bilinear_corners"
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return F.interpolate(flat, size=tuple(size), mode=mode, align_corners=align).reshape(*maps.shape[:-2], *size)


def _spline(maps: Tensor, size: Size) -> Tensor:
    zooms = (*[1.0] * (maps.ndim - 2), size[0] / maps.shape[-2], size[1] / maps.shape[-1])
    made = ndimage.zoom(maps.cpu().double().numpy(), zooms, order=3, mode="nearest", grid_mode=True)
    return torch.from_numpy(made).to(maps.device, maps.dtype)


def _separable(maps: Tensor, size: Size, antialias: bool, mirror: bool) -> Tensor:
    """Rows, then columns, in double precision."""
    rows, columns = (
        torch.from_numpy(_cubic_weights(old, new, antialias, mirror)).to(maps.device)
        for old, new in zip(maps.shape[-2:], size, strict=True)
    )
    return (rows @ maps.double() @ columns.T).to(maps.dtype)


@functools.lru_cache(maxsize=64)
def _cubic_weights(old: int, new: int, antialias: bool, mirror: bool) -> np.ndarray:
    """[new, old] float64, rows of sum 1: what each old pixel adds to each new one.  Keys 1981, a = -0.5.

    antialias: the kernel is stretched by old / new where that is above 1. mirror: beyond the border the row runs
    backwards, its last pixel repeated; else the last pixel goes on for ever.
    """
    stretch = max(old / new, 1.0) if antialias else 1.0
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    reach = int(np.ceil(2 * stretch)) + 1
    taps = np.floor(centres).astype(int)[:, None] + np.arange(-reach, reach + 1)  # [new,taps]
    weights = _cubic((centres[:, None] - taps) / stretch)
    taken = np.minimum(taps % (2 * old), 2 * old - 1 - taps % (2 * old)) if mirror else taps.clip(0, old - 1)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], taken), weights / weights.sum(1, keepdims=True))
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def blur(images: Tensor, sigma: float, radius: int | None = None, border: str = "mirror") -> Tensor:
    """Images [...,H,W] convolved with a Gaussian of `sigma` pixels, cut off at `radius` (default 3 sigma, rounded up).

    border: `mirror` (the image runs backwards beyond its border, the border pixel not repeated), `edge` (the border
    pixel goes on for ever) or `zero`.
    """
    radius = math.ceil(3 * sigma) if radius is None else radius
    rows, columns = (
        _blurring(length, sigma, radius, border).to(images.device, images.dtype) for length in images.shape[-2:]
    )
    return rows @ images @ columns.mT


@functools.lru_cache(maxsize=64)
def _blurring(length: int, sigma: float, radius: int, border: str) -> Tensor:
    """[length,length] float64: what each pixel of a row gives to each pixel of the blurred row."""
    if border not in BORDERS:
        raise unknown("border", border, BORDERS)
    steps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(steps.double() ** 2) / (2 * sigma**2)) if sigma > 0 else (steps == 0).double()
    taken = torch.arange(length)[:, None] + steps  # [length,2r+1]
    inside = (taken >= 0) & (taken < length)
    period = max(2 * (length - 1), 1)
    folded = taken.remainder(period)
    folded = torch.minimum(folded, period - folded).clamp(max=length - 1)
    shares = (weights / weights.sum()).expand(length, -1)
    if border == "edge":
        folded = taken.clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, folded, shares * inside if border == "zero" else shares)
