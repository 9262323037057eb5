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


def pooled(cell: Cell, weights: Floats) -> Floats:
    """[1 + C, 3, T] float64: true positives, false positives and false negatives in pixels, summed over the data set,
    of the background and of each class in the order of `np.unique(cell.classes)`. See `metrics.segmentation`."""
    assert cell.curves is not None
    names, codes = np.unique(cell.classes, return_inverse=True)
    curves, half = cell.curves.astype(np.float64), cell.curves.shape[1] // 2
    sums = [weights @ curves[:, half:]]
    sums += [weights[codes == k] @ curves[codes == k, :half] for k in range(len(names))]
    return np.stack(sums).reshape(1 + len(names), 3, -1)


def ious(counts: Floats) -> Floats:
    """TP / (TP + FP + FN) [K,T] of counts [K,3,T]; NaN where a class is neither there nor predicted."""
    return _share(counts[:, 0], counts.sum(1))


def mean_iou(counts: Floats) -> Floats:
    """[T]: the mean over the classes that have an IoU. Everingham et al. 2010."""
    return _over_classes(ious(counts))


def miou_pooled(cell: Cell, weights: Floats) -> float:
    """The mean IoU of the pooled counts, at the best of the curve's levels where it has several."""
    return _at_best(cell, weights, mean_iou)


def precision_pooled(cell: Cell, weights: Floats) -> float:
    """The mean of TP / (TP + FP), at the level of the best mean IoU."""
    return _at_best(cell, weights, lambda n: _over_classes(_share(n[:, 0], n[:, 0] + n[:, 1])))


def recall_pooled(cell: Cell, weights: Floats) -> float:
    """The mean of TP / (TP + FN), at the level of the best mean IoU."""
    return _at_best(cell, weights, lambda n: _over_classes(_share(n[:, 0], n[:, 0] + n[:, 2])))


def false_positives_pooled(cell: Cell, weights: Floats) -> float:
    """The mean over classes but the background of FP / union, at the level of the best mean IoU."""
    return _at_best(cell, weights, lambda n: _over_classes(_share(n[1:, 1], n[1:].sum(1))))


def false_negatives_pooled(cell: Cell, weights: Floats) -> float:
    """The mean over classes but the background of FN / union, at the level of the best mean IoU."""
    return _at_best(cell, weights, lambda n: _over_classes(_share(n[1:, 2], n[1:].sum(1))))


def _at_best(cell: Cell, weights: Floats, statistic: Callable[[Floats], Floats]) -> float:
    if cell.curves is None or not weights.sum():
        return float("nan")
    counts = pooled(cell, weights)
    quality = mean_iou(counts)
    return float("nan") if np.isnan(quality).all() else float(statistic(counts)[np.nanargmax(quality)])


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _over_classes(shares: Floats) -> Floats:
    """[T] from [K,T]: the mean of those that are there."""
    there = ~np.isnan(shares)
    return _share(np.where(there, shares, 0.0).sum(0), there.sum(0).astype(np.float64))


REDUCTIONS: dict[str, Callable[[Cell, Floats], float]] = {
    "mean": mean,
    "class_mean": class_mean,
    "max_over_curve": max_over_curve,
    "mean_of_max": mean_of_max,
    "miou_pooled": miou_pooled,
    "precision_pooled": precision_pooled,
    "recall_pooled": recall_pooled,
    "false_positives_pooled": false_positives_pooled,
    "false_negatives_pooled": false_negatives_pooled,
}
