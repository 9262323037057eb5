"""How alike two heatmaps are: SSIM, histograms of oriented gradients, top pixels; and how complex one is.

Everything takes maps [H,W] as NumPy arrays and returns None where it is not defined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from gradcam_bench.errors import unknown

Floats = NDArray[np.floating[Any]]
Numbers = NDArray[Any]

PERCENTILE = 99  # beyond which a map's values are cut off before they are compared as pictures
TAPS, SIGMA = 11, 1.5  # SSIM's gaussian window
K1, K2 = 0.01, 0.03
CELL, BLOCK, BINS = 16, 3, 9  # HOG: pixels a cell, cells a block, orientations in 180 degrees
CLIPPED, EPSILON = 0.2, 1e-5
RECIPES = {"wang_2004": (1.0, False), "adebayo_2018": (2.0, True)}  # range of values, whether n - 1 divides


def as_picture(heatmap: Floats, how: str) -> Floats | None:
    """A map [H,W] as the authors of the sanity checks compare it.  Adebayo et al. 2018, section 4, and their notebooks.

    `minmax`: from 0 at its minimum to 1 at its maximum. `abs`: magnitudes, from 0 at the smallest to 1 at their 99th
    percentile, cut off there. `diverging`: signed, 0.5 at 0 and 1 at the 99th percentile of the values, cut off there
    and at -1. None where there is nothing to divide by.
    """
    values = heatmap.astype(np.float64)
    if how == "minmax":
        low, high = values.min(), values.max()
        return (values - low) / (high - low) if high > low else None
    if how == "abs":
        values = np.abs(values)
        low, high = values.min(), np.percentile(values, PERCENTILE)
        return np.clip((values - low) / (high - low), 0, 1) if high > low else None
    if how == "diverging":
        span = abs(np.percentile(values, PERCENTILE))
        return np.clip((values + span) / (2 * span), -1, 1) if span > 0 else None
    raise unknown("protocol.similarity_map", how, ("minmax", "abs", "diverging"))


def correlation(one: Numbers, other: Numbers) -> float | None:
    """Pearson's correlation of two arrays of one shape, in [-1, 1]; None where one is constant."""
    x, y = (values.ravel() - values.mean(dtype=np.float64) for values in (one, other))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else None


def blurred(values: Floats) -> Floats:
    """Means [H-10,W-10] under a gaussian window of 11 x 11 taps and deviation 1.5, wherever it fits into [H,W]."""
    at = np.arange(TAPS) - TAPS // 2
    weights = np.exp(-(at**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    edge = TAPS // 2
    rows = correlate1d(values, weights, axis=0)[edge : len(values) - edge]
    return correlate1d(rows, weights, axis=1)[:, edge : values.shape[1] - edge]


def moments(picture: Floats) -> tuple[Floats, Floats]:
    """Local means and variances (divided by n) of a picture, for `ssim`."""
    mean = blurred(picture)
    return mean, blurred(picture * picture) - mean * mean


def ssim(
    one: Floats,
    other: Floats,
    recipe: str = "wang_2004",
    of_one: tuple[Floats, Floats] | None = None,
) -> float | None:
    """Mean structural similarity of two pictures [H,W], in [-1, 1].  Wang et al. 2004, eq. 13 and section III C.

    `wang_2004`: gaussian window of 11 x 11, deviation 1.5, wherever it lies inside; K1 = 0.01, K2 = 0.03; values range
    over 1. `adebayo_2018`: as the call in the authors' notebooks comes to, a range of 2 (floats were taken to span -1
    to 1) and covariances of a sample, n / (n - 1) for a window of n = 121. of_one: its `moments`, if known. None for
    pictures smaller than the window.
    """
    if min(one.shape) < TAPS:
        return None
    span, sample = RECIPES[recipe]
    (x, xx), (y, yy) = of_one or moments(one), moments(other)
    xy = blurred(one * other) - x * y
    norm = TAPS**2 / (TAPS**2 - 1) if sample else 1.0
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    found = (2 * x * y + c1) * (2 * norm * xy + c2) / ((x * x + y * y + c1) * (norm * (xx + yy) + c2))
    return float(found.mean())


def oriented_gradients(picture: Floats) -> Floats | None:
    """Histograms of oriented gradients of a picture [H,W], a vector.  Dalal and Triggs 2005, sections 6.1 to 6.4.

    Central differences (zero at the border), magnitudes summed over nine unsigned orientations in cells of 16 x 16
    pixels, blocks of 3 x 3 cells normalised by L2-Hys (cut off at 0.2), without interpolation between bins, as
    scikit-image has it. Pixels beyond the last whole cell are left out. None for less than one block.
    """
    down, across = np.zeros_like(picture), np.zeros_like(picture)
    down[1:-1], across[:, 1:-1] = picture[2:] - picture[:-2], picture[:, 2:] - picture[:, :-2]
    rows, columns = picture.shape[0] // CELL, picture.shape[1] // CELL
    if min(rows, columns) < BLOCK:
        return None
    magnitude = np.hypot(down, across)[: rows * CELL, : columns * CELL]
    angle = np.rad2deg(np.arctan2(down, across))[: rows * CELL, : columns * CELL] % 180
    bins = np.minimum((angle / (180 / BINS)).astype(np.int64), BINS - 1)  # -1e-17 % 180 is 180
    cell = np.arange(rows * CELL)[:, None] // CELL * columns + np.arange(columns * CELL) // CELL
    sums = np.bincount((cell * BINS + bins).ravel(), magnitude.ravel(), rows * columns * BINS)
    cells = sums.reshape(rows, columns, BINS) / CELL**2
    blocks = np.lib.stride_tricks.sliding_window_view(cells, (BLOCK, BLOCK), (0, 1)).transpose(0, 1, 3, 4, 2)
    vectors = blocks.reshape(*blocks.shape[:2], -1)
    return _unit(np.minimum(_unit(vectors), CLIPPED)).ravel()


def _unit(vectors: Floats) -> Floats:
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True) + EPSILON**2)


def top(heatmap: Floats, share: float) -> Floats:
    """[N] in [0, 1]: 1 for the pixels of a map that belong to its highest `share` (at least one); those that tie at the
    limit share what is left of it evenly."""
    values = heatmap.ravel()
    count = max(round(share * len(values)), 1)
    limit = np.partition(values, len(values) - count)[len(values) - count]
    above, level = values > limit, values == limit
    return (above + level * ((count - above.sum()) / level.sum())).astype(np.float32)


def entropy(heatmap: Floats, bins: int) -> float:
    """Entropy in nats of the histogram of a map's values over its own range."""
    counts = np.histogram(heatmap, bins)[0]
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
