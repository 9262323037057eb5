"""Named reductions: from the statistics of many units to one number. Pure tables, so a bootstrap can call them again.

Each takes the scored units of one cell (one dataset, model, stage, draw, method, metric, protocol) and weights [n]: how
often each unit counts (ones, or a bootstrap's multiplicities).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cell:
    """The scored units of one cell: values [n] float (NaN where a metric has only curves), curves [n,T] or None,
    classes [n], images [n] (cluster labels), axes: the protocol's axes that the metric reads."""

    values: Floats
    curves: Floats | None
    classes: NDArray[Any]
    images: NDArray[Any]
    axes: Mapping[str, Any]


def mean(cell: Cell, weights: Floats) -> float:
    """The mean statistic of a unit."""
    return float(np.average(cell.values, weights=weights)) if weights.sum() else float("nan")


def class_mean(cell: Cell, weights: Floats) -> float:
    """The mean over classes of each class' mean; classes without a unit do not count. Zhang et al. 2016."""
    codes = np.unique(cell.classes, return_inverse=True)[1]
    counts = np.bincount(codes, weights)
    totals = np.bincount(codes, weights * cell.values)
    present = counts > 0
    return float((totals[present] / counts[present]).mean()) if present.any() else float("nan")


def max_over_curve(cell: Cell, weights: Floats) -> float:
    """The best level of the mean curve."""
    if cell.curves is None or not weights.sum():
        return float("nan")
    return float((weights @ cell.curves / weights.sum()).max())


def mean_of_max(cell: Cell, weights: Floats) -> float:
    """The mean over the IoUs demanded of the accuracy at the level that is best for that IoU. Choe et al. 2020.

    Accuracies compare float32 with float32: an IoU of exactly 0.7 counts.
    """
    if cell.curves is None or not weights.sum():
        return float("nan")
    best = [
        float((weights @ (cell.curves >= np.float32(demanded)) / weights.sum()).max())
        for demanded in cell.axes["iou_threshold"]
    ]
    return float(np.mean(best))


def harmonic_of_means(cell: Cell, weights: Floats) -> float:
    """The harmonic mean of the points of the mean curve; 0 where one of them is. Poppi et al. 2021 (ADCC), eq. 5."""
    if cell.curves is None or not weights.sum():
        return float("nan")
    means = weights @ cell.curves.astype(np.float64) / weights.sum()
    return float(len(means) / (1 / means).sum()) if (means > 0).all() else 0.0


REDUCTIONS: dict[str, Callable[[Cell, Floats], float]] = {
    "mean": mean,
    "class_mean": class_mean,
    "max_over_curve": max_over_curve,
    "mean_of_max": mean_of_max,
    "harmonic_of_means": harmonic_of_means,
}
